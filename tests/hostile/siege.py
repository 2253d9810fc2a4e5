"""A siege: hostile callers and good ones on both ports of one gateway, and what it held before and after."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
import uvloop

from tests.fault.held_resources import HeldResources
from tests.hostile.crowd import Tally, hostile_connection
from tests.hostile.good_caller import GoodRequest, GoodTally, good_caller
from tests.hostile.hostile_requests import HostileRequests, material
from tests.integration.gateway_client import Client
from tests.integration.gateway_models import ITEMS, ranking_scores
from tests.integration.gateway_stack import Gateway, Stack

DATA_CONNECTIONS, ADMIN_CONNECTIONS, GOOD_CALLERS = 48, 3, 2
WARM_UP_MAX = 5_000
"""Requests before the first look at what is held: caches and the allocator's pools are full then."""

LOOKS_EVERY_S = 0.25
WRITER = {"content-type": "application/json", "x-sekisho-actor": "siege", "x-sekisho-reason": "to clean up"}
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class SiegeResult:
    """How it went. held: by the gateway, after the warm-up and at the end."""

    tally: Tally
    good: GoodTally
    seconds: float
    held_before: HeldResources
    held_after: HeldResources

    @property
    def harm(self) -> bool:
        """Whether anything happened that never may."""
        return bool(self.tally.offences) or self.good.wrong > 0


def besiege(stack: Stack, requests: int, seed: int, told: Callable[[int], object] = lambda count: None) -> SiegeResult:
    """Send so many hostile requests. told: hears how many were answered so far, a few times a second."""
    gateway, good_requests = stack.gateway, ranking_requests(stack) + basket_requests()
    served = served_versions(gateway)
    warm_up = min(WARM_UP_MAX, requests // 4)
    uvloop.run(_round(gateway, good_requests, Tally(), GoodTally(), warm_up, seed + 1_000_000, lambda count: None))
    restore_versions(gateway, served)
    before = HeldResources.settled(gateway)
    tally, good, began_s = Tally(), GoodTally(), time.monotonic()
    uvloop.run(_round(gateway, good_requests, tally, good, requests, seed, told))
    seconds = time.monotonic() - began_s
    restore_versions(gateway, served)
    before.assert_returned(gateway)
    return SiegeResult(tally, good, seconds, before, HeldResources.of(gateway))


def served_versions(gateway: Gateway) -> dict[str, tuple[str, set[str]]]:
    """List the default version and all versions of each model."""
    models = gateway.admin("/admin/v1/status")["models"]
    return {name: (model["default_version"], set(model["versions"])) for name, model in models.items()}


def restore_versions(gateway: Gateway, served: dict[str, tuple[str, set[str]]]) -> None:
    """Take back what hostile callers of the admin port could rightly do there: nobody asked them for a key."""
    for name, (default, versions) in served_versions(gateway).items():
        was_default, were = served[name]
        assert were <= versions, f"{name}: {were - versions} were removed, though an experiment draws them"
        if default != was_default:
            _write(gateway, "PUT", f"{name}/default_version", {"version": was_default})
        for version in versions - were:
            _write(gateway, "DELETE", f"{name}/versions/{version}")


def _write(gateway: Gateway, method: str, path: str, document: object = None) -> None:
    with Client(gateway.admin_port) as client:
        body = json.dumps(document).encode() if document else None
        reply = client.ask(method, f"/admin/v1/models/{path}", body, WRITER)
    assert reply.status == 200, reply.body


async def _round(
    gateway: Gateway,
    good_requests: list[GoodRequest],
    tally: Tally,
    good: GoodTally,
    requests: int,
    seed: int,
    told: Callable[[int], object],
) -> None:
    def enough() -> bool:
        return tally.requests >= requests

    async with asyncio.TaskGroup() as group:
        for name, port, count in (
            ("data", gateway.port, DATA_CONNECTIONS),
            ("admin", gateway.admin_port, ADMIN_CONNECTIONS),
        ):
            found = material(admin=name == "admin")
            for n in range(count):
                # Of one seed comes one sequence a connection; how they interleave is the machine's.
                supply = HostileRequests(seed * 1_000 + n, found, admin=name == "admin")
                random = Random(seed * 1_000 + 500 + n)
                group.create_task(hostile_connection(name, port, supply, random, tally, enough))
        for n in range(GOOD_CALLERS):
            group.create_task(good_caller(gateway.port, good_requests[n::GOOD_CALLERS], good, enough))
        while not enough():
            told(tally.requests)
            await asyncio.sleep(LOOKS_EVERY_S)
    told(tally.requests)


def ranking_requests(stack: Stack, count: int = 200) -> list[GoodRequest]:
    """Predict for stored entities: the score is known of either version."""
    pairs = [(n, n % ITEMS) for n in range(count)]
    rows = stack.stored.rows(pairs)
    scores = {version: np.asarray(ranking_scores(stack.repository, version, rows)) for version in "12"}

    def check(number: int) -> Callable[[int, bytes], str | None]:
        def problem(status: int, body: bytes) -> str | None:
            answer = json.loads(body)
            if status != 200 or answer["degraded"]:
                return f"{status} {body[:300]!r}"
            expected = float(scores[answer["version"]][number])
            return None if abs(answer["predictions"][0] - expected) <= TOLERANCE else f"{answer}, expected {expected}"

        return problem

    return [
        GoodRequest(
            _post("/v1/models/ranking:predict", {"entities": {"user": f"u{user}", "item": f"i{item}"}}), check(number)
        )
        for number, (user, item) in enumerate(pairs)
    ]


def basket_requests(count: int = 100) -> list[GoodRequest]:
    """Infer on tensors of every kind."""

    def check(number: int) -> Callable[[int, bytes], str | None]:
        expected = {"total": [number + 3.0], "visits_twice": [2 * number], "tier_echo": [f"t{number}"]}

        def problem(status: int, body: bytes) -> str | None:
            if status != 200:
                return f"{status} {body[:300]!r}"
            outputs = {output["name"]: output["data"] for output in json.loads(body)["outputs"]}
            return None if outputs == expected else f"{outputs}, expected {expected}"

        return problem

    return [
        GoodRequest(
            _post(
                "/v2/models/basket/versions/1/infer",
                {
                    "inputs": [
                        {"name": "amounts", "datatype": "FP32", "shape": [1, 3], "data": [number, 1, 2]},
                        {"name": "visits", "datatype": "INT64", "shape": [1], "data": [number]},
                        {"name": "tier", "datatype": "BYTES", "shape": [1], "data": [f"t{number}"]},
                    ],
                    "outputs": [{"name": "total"}, {"name": "visits_twice"}, {"name": "tier_echo"}],
                },
            ),
            check(number),
        )
        for number in range(count)
    ]


def _post(path: str, document: object) -> bytes:
    body = json.dumps(document).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body
