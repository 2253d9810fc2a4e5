"""A pool over real sockets: which replicas it gives work, and how it follows addresses and readiness."""

import asyncio
import logging
from random import Random

import pytest

from gateway.clock import monotonic
from gateway.dispatch.outlier_ejection import CONSECUTIVE_FAILURES
from gateway.dispatch.worker_address import address_of
from gateway.dispatch.worker_pool import WorkerPool
from tests.unit.gateway.gateway_fakes import HandClock, in_loop


class Workers:
    """Servers that say of themselves whether they are ready."""

    def __init__(self, count: int) -> None:
        self.count, self.ready = count, [True] * count
        self.asked: list[str] = []
        self._servers: list[asyncio.Server] = []

    async def __aenter__(self) -> "Workers":
        for number in range(self.count):
            server = await asyncio.start_server(self._serving(number), "127.0.0.1", 0)
            self._servers.append(server)
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()

    @property
    def addresses(self):
        return [address_of(f"http://127.0.0.1:{s.sockets[0].getsockname()[1]}") for s in self._servers]

    def _serving(self, number: int):
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while line := await reader.readline():
                    if line.startswith(b"GET"):
                        self.asked.append(line.split()[1].decode())
                    if line == b"\r\n":
                        status = b"200 OK" if self.ready[number] else b"503 Service Unavailable"
                        writer.write(b"HTTP/1.1 %b\r\ncontent-length: 0\r\n\r\n" % status)
            finally:
                writer.close()

        return serve


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


def pool_of(addresses, clock=monotonic) -> WorkerPool:
    return WorkerPool(addresses, clock, random=Random(1))


def picked(pool: WorkerPool, times: int = 50) -> set:
    return {pool.pick()[0].url for _ in range(times)}


@in_loop
async def test_a_replica_that_fails_again_and_again_is_given_nothing_until_its_time_is_over():
    async with Workers(2) as workers:
        clock = HandClock()
        pool = pool_of(workers.addresses, clock)
        pool.start()
        await until(lambda: all(len(replica.connections) == 2 for replica in pool.replicas))
        bad, good = pool.replicas
        for _ in range(CONSECUTIVE_FAILURES):
            pool.failed(bad, clock.now_s)
        assert picked(pool) == {good.url}
        assert not pool.has_other(good)
        pool.look()
        clock.now_s += 31
        pool.look()
        good.outstanding_rows = 1
        assert bad.url in picked(pool)
        assert 0 < bad.weight < 1, "it comes back gently"
        await pool.close()


@in_loop
async def test_the_last_replica_that_can_be_reached_is_used_however_badly_it_does():
    async with Workers(1) as workers:
        gone = address_of("http://127.0.0.1:1")
        pool = pool_of([*workers.addresses, gone])
        pool.start()
        await until(lambda: pool.replicas[0].connections and not pool.replicas[1].reachable)
        for _ in range(3 * CONSECUTIVE_FAILURES):
            pool.failed(pool.replicas[0], monotonic())
        assert picked(pool) == {pool.replicas[0].url}
        await pool.close()


@in_loop
async def test_silence_counts_against_a_replica_only_once_it_has_lasted():
    async with Workers(2) as workers:
        clock = HandClock()
        pool = pool_of(workers.addresses, clock)
        pool.start()
        await until(lambda: all(replica.connections for replica in pool.replicas))
        silent, other = pool.replicas
        silent.silent_since_s = clock.now_s
        pool.was_late(silent, clock.now_s + 0.1)
        assert not silent.health.is_ejected
        pool.was_late(silent, clock.now_s + 0.3)
        assert silent.health.is_ejected
        assert picked(pool) == {other.url}
        await pool.close()


@in_loop
async def test_a_replica_that_says_it_is_not_ready_is_given_nothing_until_it_is(monkeypatch):
    monkeypatch.setattr("gateway.dispatch.readiness_checks.CHECK_EVERY_S", 0.01)
    async with Workers(2) as workers:
        pool = pool_of(workers.addresses)
        pool.start()
        pool.check_readiness("/v2/models/m/ready")
        await until(lambda: all(replica.connections for replica in pool.replicas) and len(workers.asked) > 4)
        assert set(workers.asked) == {"/v2/models/m/ready"}
        workers.ready[0] = False
        await until(lambda: picked(pool, 5) == {pool.replicas[1].url})
        workers.ready[0] = True
        await until(lambda: not pool.replicas[0].health.checked_out)
        await pool.close()


@in_loop
async def test_addresses_that_come_are_connected_to_and_those_that_go_finish_what_they_hold():
    async with Workers(3) as workers:
        first, second, third = workers.addresses
        pool = pool_of([first, second])
        pool.start()
        await until(lambda: all(replica.connections for replica in pool.replicas))
        leaving, staying = pool.replicas
        leaving.outstanding_rows = 1
        pool.update([second, third])
        assert pool.replicas[0] is staying
        assert picked(pool) == {staying.url}
        await until(lambda: all(replica.connections for replica in pool.replicas))
        assert leaving.connections, "it is answering yet"
        leaving.outstanding_rows = 0
        await until(lambda: not any(connection.idle for connection in leaving.connections))
        await pool.close()


@in_loop
async def test_a_replica_that_asks_to_be_left_alone_is_for_a_second_at_most_and_where_there_are_others():
    async with Workers(2) as workers:
        clock = HandClock()
        pool = pool_of(workers.addresses, clock)
        pool.start()
        await until(lambda: all(replica.connections for replica in pool.replicas))
        first, second = pool.replicas
        pool.rests(first, 3_600, clock.now_s)
        assert picked(pool) == {second.url}
        pool.rests(second, 0.5, clock.now_s)
        assert picked(pool), "where all ask for it, none is"
        clock.now_s += 1.01
        second.outstanding_rows = 1
        assert picked(pool) == {first.url}
        await pool.close()


@in_loop
async def test_most_of_a_pool_may_refuse_to_serve_and_what_is_sent_goes_to_the_others():
    async with Workers(3) as workers:
        clock = HandClock()
        pool = pool_of(workers.addresses, clock)
        pool.start()
        await until(lambda: all(replica.connections for replica in pool.replicas))
        first, second, third = pool.replicas
        for _ in range(2 * CONSECUTIVE_FAILURES):
            pool.refused(first, clock.now_s)
            pool.refused(second, clock.now_s)
        assert [r.health.is_ejected for r in pool.replicas] == [True, False, False], "no more than half of a pool is"
        third.outstanding_rows = 5
        assert picked(pool) == {third.url}
        await pool.close()


@in_loop
async def test_a_replica_that_refuses_once_is_given_work_again_in_a_moment_and_later_each_time():
    async with Workers(2) as workers:
        clock = HandClock()
        pool = pool_of(workers.addresses, clock)
        first, _ = pool.replicas
        rests_s = []
        for _ in range(CONSECUTIVE_FAILURES):
            pool.refused(first, clock.now_s)
            rests_s.append(round(first.rests_until_s - clock.now_s, 3))
        assert rests_s == [0.1, 0.2, 0.4, 0.8, 1.0]


@in_loop
async def test_refused_rows_speak_neither_for_a_replica_nor_against_it_but_break_its_silence():
    async with Workers(2) as workers:
        clock = HandClock()
        pool = pool_of(workers.addresses, clock)
        first, _ = pool.replicas
        first.silent_since_s, first.outstanding_rows = clock.now_s - 9, 1
        for _ in range(CONSECUTIVE_FAILURES - 1):
            pool.failed(first, clock.now_s)
        for _ in range(100):
            pool.refused_rows(first, clock.now_s)
        assert first.health.failures_in_row == CONSECUTIVE_FAILURES - 1
        assert (first.health.samples, first.health.ewma_s, first.health.peak_ewma_s) == (0, 0, 0)
        assert first.silent_since_s == clock.now_s
        assert first.rests_until_s <= clock.now_s


@in_loop
async def test_what_nobody_foresaw_while_connecting_is_logged_with_its_traceback_and_tried_again(monkeypatch, caplog):
    monkeypatch.setattr("gateway.dispatch.worker_pool.RECONNECT_DELAY_S_MAX", 0.01)
    async with Workers(1) as workers:
        pool = pool_of(workers.addresses)
        connect, faults = pool._connect, [RuntimeError("never seen")] * 3

        async def connect_at_last(replica, on_lost):
            if faults:
                raise faults.pop()
            return await connect(replica, on_lost)

        monkeypatch.setattr(pool, "_connect", connect_at_last)
        pool.start()
        await until(lambda: len(pool.replicas[0].connections) == 2)
        await pool.close()
    logged = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(logged) == 3
    assert all(record.exc_info for record in logged)


@in_loop
async def test_a_fault_of_whoever_is_told_of_a_connection_loses_no_connection_for_good(monkeypatch, caplog):
    monkeypatch.setattr("gateway.dispatch.worker_pool.RECONNECT_DELAY_S_MAX", 0.01)
    async with Workers(1) as workers:
        pool = pool_of(workers.addresses)
        faults = [RuntimeError("never seen")] * 3

        def told() -> None:
            if faults:
                raise faults.pop()

        pool.on_change = told
        pool.start()
        await until(lambda: not faults and len(pool.replicas[0].connections) == 2)
        assert all(connection.idle for connection in pool.replicas[0].connections)
        await pool.close()
        assert pool.replicas[0].connections == []
    assert "never seen" in caplog.text


@in_loop
async def test_a_look_that_fails_is_followed_by_the_next(monkeypatch):
    monkeypatch.setattr("gateway.dispatch.worker_pool.LOOK_S", 0.001)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with Workers(1) as workers:
        pool = pool_of(workers.addresses)
        looks = []

        def look() -> None:
            looks.append(1)
            raise RuntimeError("never seen")

        monkeypatch.setattr(pool, "look", look)
        with pytest.raises(RuntimeError):
            pool.start()
        await until(lambda: len(looks) > 2)
        await pool.close()
