"""The rungs below Redis, through a real gateway: rows remembered while young, remembered rows, defaults, a refusal."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest

from feature_store import RowWriter, open_redis, read_views
from tests.integration.gateway_client import Client, until
from tests.integration.gateway_models import load_features
from tests.integration.gateway_stack import MODELS, Gateway, Stack

pytestmark = pytest.mark.integration

DEADLINE_MS = 200
MAX_AGE_S = 0.3
NEAR_CACHES = {
    "user_profile": "{max_age: 300ms, stale_if_unavailable: 10m}",
    "account": "{stale_if_unavailable: 10m}",
}
USERS, ITEMS = 10, 5
STOPPED_S = 2.0
STILL_YOUNG = ["feature_default:item_stats"]
FROM_MEMORY = ["feature_stale:user_profile", "feature_default:item_stats"]


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Gateway]]:
    """A system of its own, whose views of users are remembered, and a gateway with short deadlines."""
    stack = Stack(tmp_path_factory.mktemp("ladder"))
    try:
        stack.start()
        features = stack.directory / "features.yaml"
        text = features.read_text(encoding="utf-8")
        for view, ages in NEAR_CACHES.items():
            text = text.replace(f"  {view}:\n", f"  {view}:\n    near_cache: {ages}\n")
        features.write_text(text, encoding="utf-8")
        asyncio.run(load_features(stack.redis.url, features, stack.stored))
        models = stack.directory / "models-in-time.yaml"
        routes = MODELS.format(**stack.worker_ports)
        models.write_text(routes.replace("deadline_ms: 2000", f"deadline_ms: {DEADLINE_MS}"), encoding="utf-8")
        yield stack, stack.start_gateway("--config", str(models), "--shutdown-grace-s", "0")
    finally:
        stack.stop()


@contextmanager
def stopped(stack: Stack) -> Iterator[None]:
    os.kill(stack.redis.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(stack.redis.pid, signal.SIGCONT)


def metric(gateway: Gateway, name: str) -> float:
    return next(float(line.split()[1]) for line in gateway.metrics().splitlines() if line.startswith(f"{name} "))


def ranking(number: int) -> dict:
    return {"entities": {"user": f"u{number % USERS}", "item": f"i{number % ITEMS}"}}


def answers(client: Client, number: int = 0) -> list[str]:
    reply = client.predict("ranking", ranking(number))
    assert reply.status == 200, reply.body
    return reply.json["degraded"]


def healed(gateway: Gateway) -> None:
    with gateway.client() as client:
        until("answers are whole", lambda: all(answers(client, number) == [] for number in range(USERS)))


@dataclass
class Callers:
    """Clients that ask all the time, each on its own connection, and what they were told and when."""

    port: int
    told: list[tuple[float, float, int, list[str]]] = field(default_factory=list)
    """Begun at, seconds, status, `degraded`."""
    stopping: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def calling(self, count: int) -> Iterator[None]:
        threads = [threading.Thread(target=self._call, args=(first,)) for first in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stopping.set()
            for thread in threads:
                thread.join()

    def _call(self, number: int) -> None:
        with Client(self.port) as client:
            while not self.stopping.wait(0.002):
                number += 1
                begun = time.monotonic()
                reply = client.predict("ranking", ranking(number))
                fallbacks = reply.json.get("degraded", [])
                self.told.append((begun, time.monotonic() - begun, reply.status, fallbacks))


def test_a_redis_that_hangs_costs_no_deadline_and_answers_come_out_of_memory_until_it_is_back(ladder):
    stack, gateway = ladder
    healed(gateway)
    opened_before = metric(gateway, "sekisho_redis_breaker_opened_total")
    callers = Callers(gateway.port)
    with callers.calling(4):
        until("callers are answered", lambda: len(callers.told) > 100)
        stopped_at = time.monotonic()
        with stopped(stack):
            until("rows come out of memory", lambda: callers.told[-1][3] == FROM_MEMORY)
            until("Redis is left alone", lambda: metric(gateway, "sekisho_redis_breaker_open") == 1)
            until("that went on for a while", lambda: callers.told[-1][0] > stopped_at + STOPPED_S)
            continued_at = time.monotonic()
        until("answers are whole again", lambda: callers.told[-1][3] == [])
    assert {status for _, _, status, _ in callers.told} == {200}
    meanwhile = [told for told in callers.told if stopped_at + 0.1 < told[0] < continued_at]
    assert {tuple(fallbacks) for *_, fallbacks in meanwhile} <= {tuple(FROM_MEMORY), tuple(STILL_YOUNG)}
    later = [told for told in meanwhile if told[0] > stopped_at + MAX_AGE_S + 0.1]
    assert len(later) > 100
    assert {tuple(fallbacks) for *_, fallbacks in later} == {tuple(FROM_MEMORY)}
    p99_s = np.quantile([seconds for _, seconds, _, _ in callers.told], 0.99)
    assert p99_s < DEADLINE_MS / 1000
    assert metric(gateway, "sekisho_redis_reads_timed_out_total") >= 5
    assert metric(gateway, "sekisho_near_cache_stale_served_total") > 0
    assert metric(gateway, "sekisho_redis_breaker_opened_total") > opened_before
    healed(gateway)
    assert metric(gateway, "sekisho_redis_breaker_open") == 0


def test_a_view_that_has_to_be_there_is_served_from_memory_and_refused_without(ladder):
    stack, gateway = ladder
    healed(gateway)
    request = {"entities": {"user": "u1"}, "features": {"hour": 1}}
    with gateway.client() as client:
        whole = client.predict("basket", request).json
        assert whole["degraded"] == []
        with stopped(stack):
            remembered = {"feature_stale:user_profile", "feature_stale:account"}
            until("all is old", lambda: set(client.predict("basket", request).json["degraded"]) == remembered)
            assert client.predict("basket", request).json["predictions"] == whole["predictions"]
            begun = time.monotonic()
            unseen = client.predict("basket", {"entities": {"user": "u599"}, "features": {"hour": 1}})
            assert time.monotonic() - begun < DEADLINE_MS / 1000
            assert (unseen.status, unseen.json["code"]) == (503, "features_unavailable")
    healed(gateway)


def test_a_young_row_is_served_from_memory_and_a_write_is_seen_within_its_age(ladder):
    stack, gateway = ladder
    healed(gateway)
    hits = metric(gateway, "sekisho_near_cache_hits_total")
    with gateway.client() as client:

        def scored() -> float:
            return client.predict("ranking", ranking(0)).json["predictions"][0]

        before = scored()
        asyncio.run(write_user(stack, "u0"))
        written_at = time.monotonic()
        until("the new row is seen", lambda: scored() != before)
        assert time.monotonic() - written_at < MAX_AGE_S + 0.25
    assert metric(gateway, "sekisho_near_cache_hits_total") > hits
    assert metric(gateway, "sekisho_near_cache_entries") >= USERS
    assert metric(gateway, "sekisho_near_cache_bytes") > 0


async def write_user(stack: Stack, user: str) -> None:
    redis = open_redis(stack.redis.url)
    try:
        writer = RowWriter(redis, await read_views(redis), lambda: time.time_ns() // 1000)
        values = {f"f{i}": 100.0 for i in range(6)}
        assert await writer.write("user_profile", user, values, stack.stored.event_time_us + 1)
    finally:
        await redis.aclose()
