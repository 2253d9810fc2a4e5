"""Several gateways, one of them of two processes, on one store of experiments."""

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.experiments_admin import EXPERIMENTS, NEW, Admin, document, experimenting
from tests.integration.gateway_client import until
from tests.integration.gateway_stack import Gateway, Stack

pytestmark = pytest.mark.integration

PATH = f"{EXPERIMENTS}/halves"
STATUS_WITHIN_S = 1.8
"""For a status page: half a second of it is patience, the rest is for a busy machine."""


@pytest.fixture(scope="module")
def pair(stack: Stack) -> Iterator[Gateway]:
    gateway = stack.start_gateway("--processes", "2", "--shutdown-grace-s", "0", wait=False, stored_experiments=True)
    stack.gateways.remove(gateway)
    until("both processes are ready", lambda: both_ready(gateway))
    yield gateway
    gateway.child.stop()


def both_ready(gateway: Gateway) -> bool:
    try:
        answer = gateway.admin("/readyz")
    except OSError:
        return False
    return answer["status"] == "ok" and len(answer["detail"]) == 2


@pytest.fixture
def single(stack: Stack, pair: Gateway) -> Iterator[Admin]:
    """The admin port of a gateway of one process, without experiments."""
    with experimenting(stack.gateway_with_stored_experiments.admin_port) as admin:
        yield admin


@pytest.fixture
def supervisor(pair: Gateway, single: Admin) -> Admin:
    return Admin(pair.admin_port)


def revisions(supervisor: Admin) -> list[int]:
    processes = supervisor.get("/admin/v1/status")["processes"]
    return [process["experiments"]["revision"] for process in processes.values()]


def by_supervisor(supervisor: Admin, content: dict[str, Any]) -> int:
    reply = supervisor.create(content)
    assert reply.headers["etag"] == f'"{reply.json["revision"]}"'
    return int(reply.json["revision"])


def test_one_write_through_the_supervisor_is_made_once_and_every_process_has_it(supervisor, single):
    revision = by_supervisor(supervisor, document("halves"))
    until("both have it", lambda: revisions(supervisor) == [revision, revision], 5)
    until("so has the other gateway", lambda: single.has(revision), 5)
    entries = supervisor.get("/admin/v1/audit?limit=2")["entries"]
    assert (entries[0]["revision"], entries[0]["actor"], entries[0]["reason"]) == (revision, "ana", "a test")
    assert all(entry["revision"] < revision for entry in entries[1:]), "it was written once"


def test_refusals_pass_through_the_supervisor_as_they_are(supervisor, single):
    supervisor.create(document("halves"))
    for reply in (supervisor.ask("PUT", PATH, document("halves"), NEW), single.ask("PUT", PATH, {}, NEW)):
        assert (reply.status, reply.json["code"]) == (412, "precondition_failed")
        assert reply.json["current"]["document"] == single.get(PATH)["document"]
    reply = supervisor.ask("PUT", f"{EXPERIMENTS}/wrong", document("wrong", model="nothing"), NEW)
    assert (reply.status, reply.json["field"]) == (422, "model")
    assert reply.headers["content-type"] == "application/problem+json"
    assert supervisor.ask("PUT", PATH, document("halves")).status == 428


def test_each_way_to_write_and_to_read_works_through_the_supervisor(supervisor):
    supervisor.create(document("halves"))
    assert supervisor.ask("PUT", "/admin/v1/kill-switch", {"model": "ranking", "on": True}).json["killed"] == [
        "ranking"
    ]
    until("all know", lambda: all(p["killed"] == ["ranking"] for p in told(supervisor)), 5)
    assert supervisor.ask("PUT", "/admin/v1/kill-switch", {"model": "ranking", "on": False}).json["killed"] == []
    assert supervisor.ask("PUT", f"{PATH}/results", {"a": 1}).status == 200
    assert supervisor.get(f"{PATH}/results")["results"] == {"a": 1}
    dry = supervisor.ask("PUT", f"{EXPERIMENTS}/other?dry_run=true", document("other", state="draft"), NEW)
    assert dry.status == 200
    assert set(supervisor.get(EXPERIMENTS)) == {"halves"}
    assert supervisor.get(f"{PATH}/explain?unit=u1")["enrolled"]
    assert supervisor.get("/admin/v1/explain?unit=u1")["serves"]["ranking"]["experiment"] == "halves"
    concluded = supervisor.set("halves", state="concluded")
    assert supervisor.ask("DELETE", PATH, headers={"if-match": concluded.headers["etag"]}).status == 200


def told(supervisor: Admin) -> list[dict[str, Any]]:
    return [process["experiments"] for process in supervisor.get("/admin/v1/status")["processes"].values()]


def test_every_process_of_every_gateway_acknowledges_its_revision(supervisor, single):
    revision = by_supervisor(supervisor, document("halves"))

    def acknowledged() -> bool:
        found = single.status()["acknowledged"]
        return len(found) == 3 and {said["revision"] for said in found.values()} == {revision}

    until("three instances have it", acknowledged, 5)
    names = {process["instance"] for process in told(supervisor)}
    assert {*names, single.status()["instance"]} == set(single.status()["acknowledged"])


def test_of_all_processes_one_watches_guardrails_and_counts_come_together(supervisor, single, pair):
    guarded = document("halves", guardrails=[{"metric": "error_rate", "max_abs_increase": 0.01}])
    revision = by_supervisor(supervisor, guarded)
    until("all have it", lambda: revisions(supervisor) == [revision, revision] and single.has(revision), 5)
    for n in range(30):
        with pair.client() as client:  # a connection a request, so that both processes have some
            assert client.predict("ranking", {"entities": {"user": f"u{n}", "item": "i1"}}).status == 200

    def counted() -> bool:
        return sum(arm["requests"] for arm in single.get(f"{PATH}/guardrails")["arms"].values()) == 30

    until("all requests are counted", counted, 5)
    leaders = [process["leads"] for process in (*told(supervisor), single.status())]
    assert leaders.count(True) == 1


def test_a_gateway_whose_route_has_not_the_version_that_is_drawn_answers_with_its_fallback(supervisor, single, pair):
    dead = {"workers": ["http://127.0.0.1:9"]}
    assert single.ask("PUT", "/admin/v1/models/ranking/versions/3", dead).status == 201
    try:
        variants = [{"name": "control", "version": "1", "bp": 0}, {"name": "treatment", "version": "3", "bp": 10_000}]
        revision = int(single.create(document("halves", variants=variants)).json["revision"])
        until("both have it", lambda: revisions(supervisor) == [revision, revision], 5)
        with pair.client() as client:
            answer = client.predict("ranking", {"entities": {"user": "u1", "item": "i1"}}).json
        assert (answer["version"], answer["degraded"], answer["experiment"]) == ("1", ["variant_fallback"], "halves")
        reply = supervisor.try_to_change("halves", lambda document: {**document, "enrol_bp": 5})
        assert (reply.status, reply.json["field"]) == (422, "variants[1].version"), json.dumps(reply.json)
        assert single.ask("DELETE", "/admin/v1/models/ranking/versions/3").json["code"] == "version_in_use"
    finally:
        single.clear()
        assert single.ask("DELETE", "/admin/v1/models/ranking/versions/3").status == 200


def test_a_redis_that_hangs_is_told_by_every_process_and_holds_up_no_status_page(supervisor, single, pair, stack):
    revision = by_supervisor(supervisor, document("halves"))
    until("both have it", lambda: revisions(supervisor) == [revision, revision], 5)
    longest_s = 0.0

    def noticed() -> bool:
        nonlocal longest_s
        began_s = time.monotonic()
        found = told(supervisor)
        longest_s = max(longest_s, time.monotonic() - began_s)
        return all(process["problem"] for process in found)

    os.kill(stack.redis.pid, signal.SIGSTOP)
    try:
        until("both processes have noticed", noticed)
        reply = supervisor.ask("GET", f"{PATH}/guardrails")
        assert (reply.status, reply.json["code"]) == (503, "experiments_unavailable")
        assert (reply.headers["content-type"], reply.headers["retry-after"]) == ("application/problem+json", "1")
        with pair.client() as client:
            answer = client.predict("ranking", {"entities": {"user": "u1", "item": "i1"}}).json
        assert answer["experiment"] == "halves"
    finally:
        os.kill(stack.redis.pid, signal.SIGCONT)
    assert longest_s < STATUS_WITHIN_S
    until("all are healed", lambda: not any(p["problem"] for p in (*told(supervisor), single.status())))
