import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from feature_store import EmbeddedRedis
from tests.integration.gateway_client import until
from tests.integration.gateway_models import load_features
from tests.integration.gateway_stack import Gateway, Stack

pytestmark = pytest.mark.fault

GOOD = {"entities": {"user": "u1", "item": "i1"}}
DEADLINE_S = 2.0
DEFAULTS = ["feature_default:user_profile", "feature_default:item_stats"]


def bring_back(stack: Stack) -> None:
    """Start Redis on the socket on which it was, with the rows that it had."""
    stack.redis.stop()
    stack.redis = EmbeddedRedis(stack.directory / "redis")
    stack.redis.start()
    asyncio.run(load_features(stack.redis.url, stack.directory / "features.yaml", stack.stored))


def degraded(gateway: Gateway, request: dict | None = None) -> list[str] | str:
    with gateway.client() as client:
        begun = time.monotonic()
        reply = client.predict("ranking", request or GOOD)
        assert time.monotonic() - begun < DEADLINE_S + 1
        return reply.json["degraded"] if reply.status == 200 else reply.json["code"]


def listens(gateway: Gateway) -> bool:
    try:
        with gateway.client() as client:
            return client.ask("GET", "/v1/models").status == 200
    except OSError:
        return False


def test_answers_degrade_to_defaults_while_redis_is_gone_and_heal_when_it_is_back(stack, gateway):
    assert degraded(gateway) == []
    os.kill(stack.redis.pid, signal.SIGKILL)
    try:
        for _ in range(20):
            assert degraded(gateway) == DEFAULTS
        with gateway.client() as client:
            strict = client.predict("basket", {"entities": {"user": "u1"}, "features": {"hour": 1}})
        assert (strict.status, strict.json["code"]) == (503, "features_unavailable")
        assert int(strict.headers["retry-after"]) >= 1
    finally:
        bring_back(stack)
    until("answers are whole again", lambda: degraded(gateway) == [])
    until("every version can answer", gateway.all_ready)


def test_a_gateway_that_starts_without_redis_falls_back_and_serves_when_it_comes(stack, gateway):
    stack.redis.stop()
    starting = stack.start_gateway("--shutdown-grace-s", "0", wait=False)
    try:
        until("it answers", lambda: listens(starting))
        assert degraded(starting) == ["static_score"]
        with starting.client() as client:
            reply = client.predict("basket", {"entities": {"user": "u1"}, "features": {"hour": 1}})
        assert (reply.status, reply.json["code"]) == (503, "model_not_ready")
    finally:
        bring_back(stack)
    until("it serves", lambda: degraded(starting) == [])
    starting.child.stop()
    until("the other one serves too", lambda: degraded(gateway) == [])


def test_a_stopped_redis_costs_no_answer_its_deadline(stack, gateway):
    os.kill(stack.redis.pid, signal.SIGSTOP)
    try:
        given = [degraded(gateway) for _ in range(40)]
    finally:
        os.kill(stack.redis.pid, signal.SIGCONT)
    assert given == [DEFAULTS] * 40
    until("answers are whole again", lambda: degraded(gateway) == [])


def test_features_apply_while_serving_replans_without_an_answer_lost(stack, gateway, tmp_path: Path):
    before = (stack.directory / "features.yaml").read_text(encoding="utf-8")
    grown = before.replace("features:\n      - {name: f0,", "features:\n      - {name: added, dtype: float32, default: 1.0}\n      - {name: f0,")  # fmt: skip  # noqa: E501
    assert grown != before
    (tmp_path / "features.yaml").write_text(grown, encoding="utf-8")
    asyncio.run(load_features(stack.redis.url, tmp_path / "features.yaml", stack.stored))
    give_up = time.monotonic() + 6
    with gateway.client() as client:
        while time.monotonic() < give_up:
            reply = client.predict("ranking", GOOD)
            assert reply.status == 200, reply.body
    assert degraded(gateway) == []
