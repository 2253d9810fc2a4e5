"""Checks of one replica over connections that the test makes: they go on, whatever happens to one of them."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from gateway.dispatch.readiness_checks import ReadinessChecks
from gateway.dispatch.replica import Replica
from gateway.dispatch.worker_address import address_of
from gateway.dispatch.worker_connection import WorkerConnection
from tests.unit.gateway.gateway_fakes import HandClock, in_loop

READY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
PATH = "/v2/models/m/ready"


class Transport(asyncio.Transport):
    """Answers each request at once."""

    def __init__(self, connection: WorkerConnection, answer: bytes) -> None:
        super().__init__()
        self._connection, self._answer = connection, answer

    def write(self, data: Any) -> None:
        asyncio.get_running_loop().call_soon(self._connection.data_received, self._answer)

    def abort(self) -> None:
        pass


def answering(answer: bytes = READY) -> WorkerConnection:
    connection = WorkerConnection(lambda _: None)
    connection.connection_made(Transport(connection, answer))
    return connection


def lost() -> WorkerConnection:
    connection = answering()
    connection.connection_lost(None)
    return connection


def banner() -> WorkerConnection:
    connection = answering()
    connection.data_received(b"SSH-2.0-x\r\n")
    return connection


async def results_of(
    monkeypatch: pytest.MonkeyPatch, makes: list[Callable[[], WorkerConnection]], checked: Callable[[bool], None]
) -> list[bool]:
    """Check a replica whose connections are made like this, one after the other. Returns which checks it passed."""
    monkeypatch.setattr("gateway.dispatch.readiness_checks.CHECK_EVERY_S", 0)
    results: list[bool] = []
    enough = asyncio.Event()
    wanted = len(makes)

    async def connect(replica: Replica, on_lost: Callable[[WorkerConnection], None]) -> WorkerConnection:
        return makes.pop(0)()

    def take(replica: Replica, latency_s: float | None, now_s: float) -> None:
        results.append(latency_s is not None)
        if len(results) == wanted:
            enough.set()
        checked(results[-1])

    checks = ReadinessChecks(connect, take, HandClock())
    checks.start(PATH, [Replica(address_of("http://worker:1"))])
    await asyncio.wait_for(enough.wait(), 5)
    await checks.close()
    return results


def raising(error: Exception) -> Callable[[], WorkerConnection]:
    def make() -> WorkerConnection:
        raise error

    return make


@pytest.mark.parametrize("make", [lost, banner, raising(OSError("refused")), raising(TimeoutError())])
@in_loop
async def test_a_connection_that_is_lost_before_it_is_asked_is_a_failed_check_and_the_next_one_may_pass(
    monkeypatch, caplog, make
):
    assert await results_of(monkeypatch, [make, make, answering], lambda passed: None) == [False, False, True]
    assert [record for record in caplog.records if record.exc_info] == []


@in_loop
async def test_what_nobody_foresaw_is_a_failed_check_logged_with_its_traceback_and_the_checks_go_on(
    monkeypatch, caplog
):
    makes = [raising(RuntimeError("never seen")), answering]
    assert await results_of(monkeypatch, makes, lambda passed: None) == [False, True]
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "never seen"


@in_loop
async def test_a_result_that_cannot_be_taken_is_logged_with_its_traceback_and_the_checks_go_on(monkeypatch, caplog):
    def checked(passed: bool) -> None:
        if not passed:
            raise RuntimeError("cannot be taken")

    assert await results_of(monkeypatch, [lost, answering], checked) == [False, True]
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
