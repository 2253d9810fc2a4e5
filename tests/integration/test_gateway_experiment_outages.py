"""Experiments while Redis is away, and when it comes back with less than it had. Real processes."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from feature_store import EmbeddedRedis
from tests.integration.experiments_admin import EXPERIMENTS, Admin, document
from tests.integration.gateway_client import until
from tests.integration.gateway_models import load_features
from tests.integration.gateway_stack import Gateway, Stack, lines_of_errors

pytestmark = pytest.mark.integration

PATH = f"{EXPERIMENTS}/halves"
IN_TIME_S = 6.0
"""For an answer that says that Redis is away."""

USERS = [f"u{n}" for n in range(12)]


class Place:
    """Gateways with a Redis of their own, that is killed and comes back, and one state directory."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self._stack, self._directory = stack, directory
        self.redis = EmbeddedRedis(directory / "redis")

    def start_redis(self) -> None:
        """Start one with nothing in it but the rows of features."""
        self.redis.stop()
        self.redis = EmbeddedRedis(self._directory / "redis")
        self.redis.start()
        asyncio.run(load_features(self.redis.url, self._stack.directory / "features.yaml", self._stack.stored))

    @contextmanager
    def gateway(self) -> Iterator[Gateway]:
        state = ("--state-dir", str(self._directory / "state"), "--redis", self.redis.url, "--shutdown-grace-s", "0")
        gateway = self._stack.start_gateway(*state, wait=False, stored_experiments=True)
        self._stack.gateways.remove(gateway)
        try:
            until("it is ready", lambda: ready(gateway))
            yield gateway
        finally:
            gateway.child.stop()
        assert lines_of_errors(gateway.child.log_file) == []


def ready(gateway: Gateway) -> bool:
    assert gateway.child.ended() is None, gateway.child.last_lines(20)
    try:
        return gateway.admin("/readyz")["status"] == "ok"
    except OSError:
        return False


@pytest.fixture
def place(stack: Stack, tmp_path: Path) -> Iterator[Place]:
    own = Place(stack, tmp_path)
    own.start_redis()
    try:
        yield own
    finally:
        own.redis.stop()


def drawn(gateway: Gateway) -> list[tuple[str, str | None]]:
    with gateway.client() as client:
        answers = [client.predict("ranking", {"entities": {"user": user, "item": "i1"}}).json for user in USERS]
    return [(answer["version"], answer["variant"]) for answer in answers]


def assert_unavailable(admin: Admin, method: str, path: str, content: Any = None, **headers: str) -> None:
    began_s = time.monotonic()
    reply = admin.ask(method, path, content, headers)
    assert (reply.status, reply.json.get("code")) == (503, "experiments_unavailable"), (path, reply.body)
    assert (reply.headers["content-type"], reply.headers["retry-after"]) == ("application/problem+json", "1")
    assert time.monotonic() - began_s < IN_TIME_S


def test_while_redis_is_away_what_is_in_force_stays_and_changes_are_refused_until_it_is_back(place):
    with place.gateway() as gateway:
        admin = Admin(gateway.admin_port)
        etag = admin.create(document("halves")).headers["etag"]
        before = drawn(gateway)
        os.kill(place.redis.pid, signal.SIGKILL)
        assert_unavailable(admin, "PUT", PATH, document("halves", enrol_bp=5), **{"if-match": etag})
        until("it is noticed", lambda: admin.status()["problem"] is not None)
        told = admin.status()
        assert (told["revision"], told["acknowledged"], told["leads"]) == (1, {}, False)
        assert admin.ask("GET", PATH).headers["etag"] == etag
        assert admin.get(f"{PATH}/explain?unit=u1")["enrolled"]
        assert "sekisho_experiments_problem 1.0" in gateway.metrics()
        assert drawn(gateway) == before
        place.start_redis()
        until("it is healed", lambda: admin.status()["problem"] is None)
        assert admin.set("halves", enrol_bp=0).json["revision"] == 2
        assert {variant for _, variant in drawn(gateway)} == {None}


def test_a_gateway_that_starts_while_redis_is_away_serves_by_the_last_experiments_and_gives_them_back(place):
    with place.gateway() as gateway:
        admin = Admin(gateway.admin_port)
        admin.create(document("halves"))
        admin.set("halves", enrol_bp=6_000)
        before = drawn(gateway)
    os.kill(place.redis.pid, signal.SIGKILL)
    with place.gateway() as gateway:
        admin = Admin(gateway.admin_port)
        told = admin.status()
        assert (told["revision"], told["from_disk"], told["problem"] is not None) == (2, True, True)
        assert drawn(gateway) == before
        place.start_redis()
        until("Redis has them again", lambda: admin.status()["problem"] is None and not admin.status()["from_disk"])
        (restored,) = admin.get("/admin/v1/audit")["entries"]
        assert (restored["action"], restored["revision"]) == ("restore", 2)
        assert admin.set("halves", enrol_bp=7_000).json["revision"] == 3
