import asyncio

import pytest

from gateway.deadline_watch import DeadlineWatch


class Clock:
    """Seconds that only a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def watched_wait(watch: DeadlineWatch, expires_at: float, release: asyncio.Event) -> str:
    watched = watch.enter(expires_at)
    try:
        await release.wait()
    finally:
        if watch.leave(watched):
            raise TimeoutError from None
    return "done"


def run(scenario) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_task_is_ended_once_its_time_has_come_and_not_before():
    async def scenario():
        clock = Clock()
        watch = DeadlineWatch(clock)
        task = asyncio.create_task(watched_wait(watch, 101.0, asyncio.Event()))
        clock.now = 100.999
        done, _ = await asyncio.wait([task], timeout=0.05)
        assert not done
        clock.now = 101.0
        with pytest.raises(TimeoutError):
            await task
        assert task.cancelling() == 0

    run(scenario)


def test_a_task_that_is_done_in_time_is_left_alone():
    async def scenario():
        clock = Clock()
        watch = DeadlineWatch(clock)
        release = asyncio.Event()
        task = asyncio.create_task(watched_wait(watch, 101.0, release))
        await asyncio.sleep(0)
        release.set()
        assert await task == "done"
        clock.now = 200.0

    run(scenario)


def test_each_task_has_its_own_deadline():
    async def scenario():
        clock = Clock()
        watch = DeadlineWatch(clock)
        release = asyncio.Event()
        early = asyncio.create_task(watched_wait(watch, 101.0, release))
        late = asyncio.create_task(watched_wait(watch, 105.0, release))
        await asyncio.sleep(0)
        clock.now = 102.0
        with pytest.raises(TimeoutError):
            await early
        assert not late.done()
        release.set()
        assert await late == "done"

    run(scenario)


def test_a_cancellation_from_outside_stays_a_cancellation():
    async def scenario():
        watch = DeadlineWatch(Clock())
        task = asyncio.create_task(watched_wait(watch, 101.0, asyncio.Event()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(scenario)


def test_it_watches_again_after_it_had_nothing_to_watch():
    async def scenario():
        clock = Clock()
        watch = DeadlineWatch(clock)
        for start in (100.0, 200.0):
            clock.now = start
            task = asyncio.create_task(watched_wait(watch, start + 1, asyncio.Event()))
            await asyncio.sleep(0)
            clock.now = start + 2
            with pytest.raises(TimeoutError):
                await task
            # Until its timer has found nothing and rested.
            while watch._ticking:  # noqa: ASYNC110 - it has no event: it simply stops
                await asyncio.sleep(0)

    run(scenario)
