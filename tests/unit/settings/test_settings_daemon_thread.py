import asyncio
import threading

import pytest

from settings.daemon_thread import run_on_daemon_thread


def test_work_runs_on_a_daemon_thread_of_its_name_and_its_result_comes_back():
    async def scenario():
        return await run_on_daemon_thread(threading.current_thread, "load-churn@1")

    thread = asyncio.run(scenario())
    assert (thread.name, thread.daemon) == ("load-churn@1", True)


@pytest.mark.parametrize(("raised", "expected"), [(KeyError("x"), KeyError), (SystemExit(3), RuntimeError)])
def test_what_work_raises_is_raised_where_it_is_awaited_and_an_exit_ends_nobody(raised, expected):
    def work():
        raise raised

    async def scenario():
        with pytest.raises(expected):
            await run_on_daemon_thread(work, "work")

    asyncio.run(scenario())


def test_a_loop_closes_while_work_still_runs():
    may_end, ended = threading.Event(), threading.Event()

    def work():
        may_end.wait(10)
        ended.set()

    async def scenario():
        waiting = asyncio.create_task(run_on_daemon_thread(work, "work"))
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(scenario())
    assert not ended.is_set()
    may_end.set()
    assert ended.wait(10)
