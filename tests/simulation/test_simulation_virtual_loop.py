import asyncio

import pytest

from tests.simulation.virtual_loop import BEGINS_S, NothingWillHappen, run


def test_a_day_passes_at_once_and_in_order():
    async def day() -> list[float]:
        loop = asyncio.get_running_loop()
        told: list[float] = []
        loop.call_later(86_400, lambda: told.append(loop.time()))
        loop.call_later(60, lambda: told.append(loop.time()))
        await asyncio.sleep(86_401)
        return told

    assert run(day) == pytest.approx([BEGINS_S + 60, BEGINS_S + 86_400])


def test_a_timeout_fires_at_its_virtual_time():
    async def timed_out() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5.0):
                await asyncio.get_running_loop().create_future()
        return asyncio.get_running_loop().time()

    assert run(timed_out) == pytest.approx(BEGINS_S + 5.0)


def test_a_hang_is_an_error():
    async def hang() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(NothingWillHappen):
        run(hang)


def test_where_nothing_is_simulated_a_connection_is_refused():
    async def connect() -> None:
        await asyncio.get_running_loop().create_connection(asyncio.Protocol, "worker", 80)

    with pytest.raises(ConnectionRefusedError, match="worker:80"):
        run(connect)
