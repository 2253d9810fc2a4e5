"""A whole system on a real Redis Cluster: what a gateway serves while one of three nodes is dead."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis.crc import key_slot

from feature_store import row_key
from tests.integration.gateway_client import Client, until
from tests.integration.gateway_models import load_features, ranking_scores
from tests.integration.gateway_stack import Stack
from tests.integration.redis_servers import SLOTS, RedisServer, cluster, knows_cluster

pytestmark = pytest.mark.integration

NODES = 3
ENTITIES = 20


class ClusterRedis:
    """A cluster where a stack has its one server."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._running = directory, ExitStack()
        self.nodes: list[RedisServer] = []

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    def start(self) -> None:
        self._directory.mkdir()
        self.nodes = self._running.enter_context(cluster(self._directory, nodes=NODES))

    def stop(self) -> None:
        self._running.close()

    def has(self, view: str, entity_id: str) -> RedisServer:
        return self.nodes[key_slot(row_key(view, entity_id)) * NODES // SLOTS]


@pytest.fixture
def on_cluster(tmp_path) -> Iterator[Stack]:
    system = Stack(tmp_path)
    system.redis = ClusterRedis(tmp_path / "cluster")
    try:
        system.start()
        yield system
    finally:
        system.stop()


def test_a_dead_node_costs_only_its_own_rows_and_they_are_served_again_when_it_is_back(on_cluster):
    redis = on_cluster.redis
    dead = redis.nodes[2]
    user = next(u for u in range(ENTITIES) if redis.has("user_profile", f"u{u}") is not dead)
    items = range(ENTITIES)
    living = [i for i in items if redis.has("item_stats", f"i{i}") is not dead]
    assert 0 < len(living) < len(items)

    def ranked(client: Client, chosen: list[int]) -> tuple[list[float], list[str]]:
        instances = [{"entities": {"item": f"i{i}"}} for i in chosen]
        answer = client.predict("ranking", {"entities": {"user": f"u{user}"}, "instances": instances}).json
        rows = on_cluster.stored.rows([(user, i) for i in chosen])
        expected = ranking_scores(on_cluster.repository, answer["version"], rows)
        right = [
            i for i, got, want in zip(chosen, answer["predictions"], expected, strict=True) if abs(got - want) < 1e-5
        ]
        return right, answer["degraded"]

    with on_cluster.gateway.client() as client:
        assert ranked(client, list(items)) == (list(items), [])
        os.kill(dead.pid, signal.SIGKILL)
        dead.stop()
        for _again in range(20):
            assert ranked(client, living) == (living, [])
            right, degraded = ranked(client, list(items))
            assert degraded == ["feature_default:item_stats"]
            assert set(living) <= set(right)
        with dead:
            # Its rows were in memory only. Writing all again reaches it, and the gateway finds the way by itself.
            until("the node is back in the cluster", lambda: all(knows_cluster(node, NODES) for node in redis.nodes))
            asyncio.run(load_features(redis.url, on_cluster.directory / "features.yaml", on_cluster.stored))
            until("every row is served again", lambda: ranked(client, list(items)) == (list(items), []))
