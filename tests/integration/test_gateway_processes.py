"""`--processes`: several gateways on one data port, told of as one."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.gateway_client import until
from tests.integration.gateway_stack import Gateway, Stack

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def pair(stack: Stack) -> Iterator[Gateway]:
    gateway = stack.start_gateway("--processes", "2", "--shutdown-grace-s", "0", wait=False)
    stack.gateways.remove(gateway)
    until("both processes are ready", lambda: ready(gateway))
    yield gateway
    gateway.child.stop()


def ready(gateway: Gateway, count: int = 2) -> bool:
    try:
        answer = gateway.admin("/readyz")
    except OSError:
        return False
    return answer["status"] == "ok" and len(answer["detail"]) == count


def counted(gateway: Gateway) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(gateway.metrics())
        for sample in family.samples
        if sample.name == "sekisho_predictions_total"
    )


def ask(gateway: Gateway, users: list[str]) -> dict[str, str]:
    # A connection a request: the kernel spreads connections, not requests, over the processes.
    variants = {}
    for user in users:
        with gateway.client() as client:
            reply = client.predict("ranking", {"entities": {"user": user, "item": "i1"}})
        assert reply.status == 200
        variants[user] = reply.json["variant"]
    return variants


def test_both_processes_answer_and_the_counters_of_both_are_in_the_sum(pair: Gateway):
    before = counted(pair)
    ask(pair, [f"u{i}" for i in range(60)])
    assert counted(pair) == before + 60
    processes = pair.admin("/admin/v1/status")["processes"]
    assert len({process["pid"] for process in processes.values()}) == 2
    assert all(process["log"]["rows_offered"] > 0 for process in processes.values())


def test_a_unit_gets_the_same_variant_from_every_process_and_from_a_single_gateway(pair: Gateway, stack: Stack):
    users = [f"u{i}" for i in range(40)]
    first = ask(pair, users)
    assert ask(pair, users) == first
    assert ask(stack.gateway, users) == first


def test_what_all_processes_say_alike_is_answered_by_one(pair: Gateway, stack: Stack):
    page = "/admin/v1/experiments/ranking-lightgbm/explain?unit=u1"
    assert pair.admin(page) == stack.gateway.admin(page)


@pytest.mark.fault
def test_a_killed_process_is_replaced_and_neither_its_counts_nor_its_log_are_lost(pair: Gateway):
    ask(pair, [f"u{i}" for i in range(30)])
    before = counted(pair)
    offered = sum(p["log"]["rows_offered"] for p in pair.admin("/admin/v1/status")["processes"].values())
    until("every row is on disk", lambda: written(pair) == offered)
    victim = pair.admin("/admin/v1/status")["processes"]["0"]["pid"]
    os.kill(victim, signal.SIGKILL)

    def replaced() -> bool:
        return ready(pair) and pair.admin("/admin/v1/status")["processes"]["0"]["pid"] != victim

    until("another process has taken its place", replaced)
    assert counted(pair) == before
    ask(pair, [f"u{i}" for i in range(20)])
    assert counted(pair) == before + 20
    pair.child.stop()
    assert pair.child.ended() == "exit code 0"
    rows = duckdb.sql(
        f"SELECT count(*) FROM read_parquet('{pair.log_directory}/predictions/**/*.parquet', union_by_name=true)"
    ).fetchall()
    assert rows == [(offered + 20,)]


def written(gateway: Gateway) -> int:
    return sum(p["log"]["rows_written"] for p in gateway.admin("/admin/v1/status")["processes"].values())


@pytest.fixture
def crowd(stack: Stack, tmp_path: Path) -> Iterator[Gateway]:
    """More processes than the default executor has threads, with routes of their own."""
    count = (os.cpu_count() or 1) + 5
    (tmp_path / "models.yaml").write_text((stack.directory / "models.yaml").read_text())
    flags = (
        "--config",
        str(tmp_path / "models.yaml"),
        "--state-dir",
        str(tmp_path / "state"),
        "--shutdown-grace-s",
        "0",
    )
    gateway = stack.start_gateway(*flags, "--processes", str(count), wait=False)
    stack.gateways.remove(gateway)
    until("all processes are ready", lambda: ready(gateway, count))
    yield gateway
    gateway.child.stop()


def test_many_processes_end_when_asked_and_a_wrong_file_does_not_keep_a_dead_ones_place_empty(
    crowd: Gateway, tmp_path: Path
):
    (tmp_path / "models.yaml").write_text("models: [")
    processes = crowd.admin("/admin/v1/status")["processes"]
    victim = next(iter(processes.values()))["pid"]
    os.kill(victim, signal.SIGKILL)

    def replaced() -> bool:
        found = crowd.admin("/admin/v1/status")["processes"]
        pids = {process.get("pid") for process in found.values()}
        return len(found) == len(processes) and None not in pids and victim not in pids

    until("another process has the dead one's place", replaced)
    until("all processes are ready", lambda: ready(crowd, len(processes)))

    def told() -> bool:
        found = crowd.admin("/admin/v1/status")["processes"].values()
        return all("models.yaml" in (process["configuration"]["files"]["problem"] or "") for process in found)

    until("each says what is wrong", told)
    begun = time.monotonic()
    os.kill(crowd.child.pid, signal.SIGTERM)
    until("they have ended", lambda: crowd.child.ended() is not None)
    assert crowd.child.ended() == "exit code 0"
    assert time.monotonic() - begun < 20
