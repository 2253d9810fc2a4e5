"""Hostile bodies and paths on the admin API for experiments: each is refused or taken, and none is a fault."""

import copy
import json
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from tests.hostile.hostile_json import RAW_TOKENS, STRANGE_NUMBERS, STRANGE_TEXTS, mutated
from tests.integration.experiments_admin import EXPERIMENTS, NEW, WHO, Admin, document, experimenting
from tests.integration.gateway_client import Client, Reply
from tests.integration.gateway_stack import Stack, lines_of_errors

pytestmark = pytest.mark.integration

HERE = "@@here@@"
TOKENS_PER_PLACE = 3
MUTATED = 200

WORST = (
    b"NaN",
    b'"\\ud800"',
    b"9" * 5_000,
    b"[" * 900 + b"]" * 900,
    b'{"a":' * 900 + b"1" + b"}" * 900,
    b"[" * 200_000,
)
"""At every place."""

DEEP_CONDITIONS = ("(" * 1_900, "not " * 480 + "a == 1", "a" + " == a" * 390, "a in [" + "1," * 900 + "]")

OTHERS = (*RAW_TOKENS, *(json.dumps(value).encode() for value in (*STRANGE_TEXTS, *STRANGE_NUMBERS)))

FULL = document(
    "hostile",
    state="draft",
    hash="eppo",
    salt="s",
    salts={"enrol": "a", "split": "b"},
    layer={"name": "l", "slots": [[0, 10_000]]},
    holdout={"name": "kept-out", "bp": 10},
    enrol_bp=100,
    where="country == 'JP'",
    variants=[
        {"name": "control", "version": "1", "bp": 5000, "ranges": [[0, 5000]]},
        {"name": "treatment", "version": "2", "bp": 5000, "ranges": [[5000, 10_000]]},
    ],
    overrides={"u1": "treatment"},
    shadow={"version": "2", "sample_bp": 10},
    guardrails=[{"metric": "error_rate", "max_abs_increase": 0.1, "action": "alert"}],
    ramp={"steps_bp": [100, 1000], "hold_s": 1, "requests_min": 1, "promote": False},
    metrics={
        "primary": "correct",
        "secondary": ["a", {"name": "ctr", "numerator": "click", "denominator": "view", "better": "increase"}],
        "mde_rel": 0.02,
        "power": 0.8,
        "alpha": 0.05,
        "window_s": 100,
        "covariate_days": 14,
    },
)


@pytest.fixture
def admin(stack: Stack) -> Iterator[Admin]:
    gateway = stack.gateway_with_stored_experiments
    with experimenting(gateway.admin_port) as found:
        yield found
    assert lines_of_errors(gateway.child.log_file) == []


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Name every place of a document, the whole first."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, found in inner:
        yield from places(found, (*path, key))


def with_token(path: tuple[Any, ...], token: bytes) -> bytes:
    """Write the full document with raw bytes at one place."""
    if not path:
        return token
    whole = copy.deepcopy(FULL)
    container: Any = whole
    for key in path[:-1]:
        container = container[key]
    container[path[-1]] = HERE
    return json.dumps(whole).encode().replace(f'"{HERE}"'.encode(), token)


class Writer:
    """Puts one experiment again and again, by the ETag of what was taken last."""

    def __init__(self, client: Client) -> None:
        self._client, self._expected = client, NEW
        self.statuses: Counter[int] = Counter()

    def put(self, body: bytes) -> Reply:
        headers = {"content-type": "application/json", **WHO, **self._expected}
        reply = self._client.ask("PUT", f"{EXPERIMENTS}/hostile", body, headers)
        self.statuses[reply.status] += 1
        if reply.status in {200, 201}:
            self._expected = {"if-match": reply.headers["etag"]}
        else:
            assert reply.headers["content-type"] == "application/problem+json"
        return reply


def test_what_is_hostile_at_any_place_of_a_document_is_refused_and_no_fault(admin):
    random = Random(3)
    with Client(admin.port) as client:
        writer = Writer(client)
        for path in places(FULL):
            for token in (*WORST, *random.sample(OTHERS, TOKENS_PER_PLACE)):
                reply = writer.put(with_token(path, token))
                assert reply.status in {200, 201, 400, 422}, (path, token[:40], reply.body[:300])
        for condition in DEEP_CONDITIONS:
            assert writer.put(json.dumps({**FULL, "where": condition}).encode()).status in {200, 422}
    assert writer.statuses[422] > writer.statuses[400] > 0
    assert writer.statuses[200] > 0, "some of it is a document after all"


def test_documents_that_were_changed_at_random_are_refused_or_taken_and_the_register_stays_readable(admin):
    random = Random(5)
    with Client(admin.port) as client:
        writer = Writer(client)
        for _ in range(MUTATED):
            reply = writer.put(json.dumps(mutated(random, FULL)).encode())
            assert reply.status in {200, 201, 400, 422}, reply.body[:300]
    assert writer.statuses[200] + writer.statuses[201] > 0
    assert admin.status()["problem"] is None
    assert set(admin.get(EXPERIMENTS)) == {"hostile"}


@pytest.mark.parametrize("name", ["%00", "..%2Fx", "%2e%2e", "x" * 129, "caf%C3%A9", "%FF", "a%0d%0ab", "-x", "%20"])
def test_a_name_that_is_none_is_refused_wherever_it_stands(admin, name):
    for method, path, content in (
        ("PUT", f"{EXPERIMENTS}/{name}", {key: value for key, value in FULL.items() if key != "experiment"}),
        ("GET", f"{EXPERIMENTS}/{name}", None),
        ("GET", f"{EXPERIMENTS}/{name}/explain?unit=u1", None),
        ("PUT", f"{EXPERIMENTS}/{name}/results", {}),
        ("DELETE", f"{EXPERIMENTS}/{name}", None),
    ):
        reply = admin.ask(method, path, content, NEW if method == "PUT" else {"if-match": '"1"'})
        assert reply.status in {400, 404, 422}, (method, reply.status, reply.body[:200])
        assert reply.headers["content-type"] == "application/problem+json"
    assert admin.get(EXPERIMENTS) == {}


def test_a_document_as_large_as_may_be_sent_is_served(admin):
    units = {f"unit-{n:05}-{'x' * 60}": "treatment" for n in range(10_000)}
    admin.create(document("large", state="draft", overrides=units))
    reply = admin.set("large", state="running")
    assert len(reply.body) > 800_000
    assert admin.get(f"{EXPERIMENTS}/large/explain?unit={next(iter(units))}")["reason"] == "override"
    assert len(admin.get("/admin/v1/audit?experiment=large")["entries"]) == 2
    too_large = document("large", overrides={**units, **{f"more-{n}": "treatment" for n in range(20_000)}})
    etag = admin.ask("GET", f"{EXPERIMENTS}/large").headers["etag"]
    refused = admin.ask("PUT", f"{EXPERIMENTS}/large", too_large, {"if-match": etag})
    assert (refused.status, refused.json["code"]) == (413, "body_too_large")
