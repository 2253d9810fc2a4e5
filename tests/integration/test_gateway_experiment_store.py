"""The store of experiments on a real Redis, alone and as a cluster: swaps, audit, counts, the lease, what is wrong."""

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from experiments.canary import ArmCounts
from experiments.register import Register, encode
from feature_store import EmbeddedRedis, open_redis
from gateway.background_task import end_tasks
from gateway.errors import ExperimentsUnavailable, PreconditionFailed
from gateway.experimentation import experiment_store
from gateway.experimentation.experiment_store import (
    ACKNOWLEDGED,
    AUDIT,
    COUNTS,
    LEASE,
    LEASE_MS,
    REGISTER,
    ExperimentStore,
    StoreUnavailable,
    keys_of,
)
from tests.integration.redis_servers import cluster
from tests.unit.gateway.experiment_fakes import ANA, Instance, becomes, document

pytestmark = pytest.mark.integration

WRITERS, WRITES = 8, {"single": 8, "clustered": 3}
KEYS = (REGISTER, AUDIT, ACKNOWLEDGED, LEASE, COUNTS.format(name="e", epoch=1), *keys_of("e", 3))
HOSTILE = (b"\xff\xfe\x00", b"NaN", b"[1,2", b"[]", b"1e999", b'{"a":' * 5_000, "関".encode() * 100)


@pytest.fixture(scope="module")
def single(tmp_path_factory) -> Iterator[str]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as redis:
        yield redis.url


@pytest.fixture(scope="module")
def clustered(tmp_path_factory) -> Iterator[str]:
    with cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield f"redis+cluster://127.0.0.1:{nodes[0].port}"


@pytest.fixture(params=["single", "clustered"])
def url(request: pytest.FixtureRequest) -> str:
    """Each kind of Redis in turn."""
    return request.getfixturevalue(request.param)


def scenario(test: Callable[[ExperimentStore, Any], Coroutine[Any, Any, None]]) -> Callable[[str], None]:
    """Run a test in a loop, on a store with nothing in it and its client, by each kind of Redis in turn."""

    def run(url: str) -> None:
        async def inner() -> None:
            async with opened(url) as redis:
                await redis.execute_command("DEL", *KEYS)
                await test(ExperimentStore(redis), redis)

        asyncio.run(inner())

    run.__name__ = test.__name__
    return run


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Any]:
    redis = open_redis(url)
    try:
        yield redis
    finally:
        await redis.aclose()


async def put_all(redis: Any, value: bytes) -> None:
    """Lay the same bytes wherever the store reads some."""
    await redis.execute_command("DEL", *KEYS)
    await redis.execute_command("HSET", REGISTER, "revision", value, "register", value)
    await redis.execute_command("XADD", AUDIT, "*", "entry", value)
    await redis.execute_command("HSET", ACKNOWLEDGED, value, value)
    await redis.execute_command("HSET", KEYS[4], value, value)


def readings(store: ExperimentStore) -> dict[str, Callable[[], Awaitable[Any]]]:
    return {
        "the register": store.read,
        "the register that is known": lambda: store.read(7),
        "the audit stream": lambda: store.audit(10),
        "the acknowledgements": store.acknowledged,
        "counts": lambda: store.counts("e", 1),
    }


# Compare and swap ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["single", "clustered"])
def test_no_change_of_eight_writers_at_once_is_lost_and_each_is_told_of_once(request, kind, tmp_path):
    url = request.getfixturevalue(kind)

    async def edit(writer: int, instance: Instance) -> list[tuple[int, str]]:
        made = []
        for number in range(WRITES[kind]):
            while True:
                await instance.live.look()
                before = instance.live.register.entries.get("e")
                units = {} if before is None else dict(before.experiment.document["overrides"])
                changed = document(overrides={**units, f"{writer}-{number}": "treatment"})
                expected = 0 if before is None else before.experiment.revision
                try:
                    outcome = await instance.changes.put("e", changed, expected, ANA, dry_run=False)
                except PreconditionFailed:
                    continue
                made.append((outcome.change.register.revision, f"{writer}-{number}"))
                break
        return made

    async def run() -> None:
        async with opened(url) as redis:
            await redis.execute_command("DEL", *KEYS)
        clients = [open_redis(url) for _ in range(WRITERS)]
        try:
            writers = [Instance(tmp_path / str(i), ExperimentStore(c), f"w{i}") for i, c in enumerate(clients)]
            answered = [*chain(*await asyncio.gather(*(edit(i, w) for i, w in enumerate(writers))))]
            entries = await writers[0].store.audit(1_000)
            last = json.loads((await writers[0].store.read()).data or b"")
        finally:
            for client in clients:
                await client.aclose()
        told = [entry.content["revision"] for entry in reversed(entries)]
        assert told == sorted(revision for revision, _ in answered) == list(range(1, WRITERS * WRITES[kind] + 1))
        assert last["experiments"]["e"]["document"] == entries[0].content["after"]
        assert set(entries[0].content["after"]["overrides"]) == {unit for _, unit in answered}
        befores = [entry.content["before"] for entry in reversed(entries)]
        assert befores == [None, *(entry.content["after"] for entry in list(reversed(entries))[:-1])]

    asyncio.run(run())


class SentTwice:
    """A client whose answers to scripts are lost once, so that each is sent again."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    async def execute_command(self, *command: Any) -> Any:
        if command[0] == "EVAL":
            await self._redis.execute_command(*command)
        return await self._redis.execute_command(*command)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._redis, name)


@scenario
async def test_a_swap_that_is_sent_again_does_not_conflict_with_itself_and_is_told_of_once(store, redis):
    again = ExperimentStore(SentTwice(redis))  # type: ignore[arg-type]
    assert await again.swap(0, 1, b"one", {"n": 1})
    assert await again.swap(1, 2, b"two", {"n": 2})
    assert [entry.content["n"] for entry in await store.audit(10)] == [2, 1]
    assert (await store.read()).data == b"two"


@scenario
async def test_a_swap_of_what_is_not_there_any_more_changes_nothing(store, redis):
    assert await store.swap(0, 1, b"one", {})
    assert not await store.swap(0, 5, b"other", {})
    assert not await store.swap(2, 3, b"other", {})
    assert ((await store.read()).data, len(await store.audit(10))) == (b"one", 1)


@scenario
async def test_what_is_known_is_not_sent_again(store, redis):
    await store.swap(0, 1, b"one", {})
    assert (await store.read(1)).data is None
    assert (await store.read(2)).data == b"one"
    await redis.execute_command("DEL", REGISTER)
    assert (await store.read(1)) == (await store.read()) == experiment_store.Stored(0, None)


@scenario
async def test_a_swap_is_news_and_its_absence_is_told_too(store, redis):
    async with aclosing(store.news(0.05)) as news:
        assert await anext(news) is False, "the channel is subscribed to"
        await store.swap(0, 1, b"one", {})
        async with asyncio.timeout(5):
            while not await anext(news):
                pass


@scenario
async def test_an_instance_in_the_middle_of_many_changes_ends_when_it_is_told_to(store, redis):
    async def change() -> None:
        revision = 0
        while await store.swap(revision, revision + 1, encode(Register(revision=revision + 1)), {}):
            revision += 1

    changing = asyncio.create_task(change())
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(5):
            one = Instance(Path(directory), ExperimentStore(redis))
            await one.live.start()
            seen = one.live.register.revision
            await becomes(lambda one=one, seen=seen: one.live.register.revision > seen + 2)
            async with asyncio.timeout(5):
                await one.live.close()
    await end_tasks(changing)


# The audit stream ----------------------------------------------------------------------------------------------------


@scenario
async def test_the_audit_stream_is_read_page_by_page_and_each_entry_once(store, redis):
    for number in range(7):
        await store.swap(number, number + 1, b"x", {"n": number})
    pages, before = [], None
    while page := await store.audit(3, before):
        pages.append([entry.content["n"] for entry in page])
        before = page[-1].id
    assert pages == [[6, 5, 4], [3, 2, 1], [0]]


@scenario
async def test_the_audit_stream_is_bounded(store, redis):
    for number in range(400):
        await redis.execute_command("XADD", AUDIT, "*", "entry", f'{{"n": {number}}}')
    script = experiment_store._SWAP
    await redis.execute_command("EVAL", script, 3, REGISTER, AUDIT, experiment_store.NEWS, 0, 1, b"x", "{}", 100, "t")
    assert 100 <= int(await redis.execute_command("XLEN", AUDIT)) <= 200, "whole nodes of the stream are dropped"


# Counts --------------------------------------------------------------------------------------------------------------


@scenario
async def test_counts_of_several_instances_add_up(store, redis):
    own = ArmCounts(requests=10, errors=2, fallbacks=1, latency={0: 4, 37: 6}, scores={-5: 3, 12: 5})
    more = ArmCounts(requests=1, latency={37: 1})
    await asyncio.gather(*(store.add_counts("e", 1, {500: {"control": own, "treatment": more}}) for _ in range(5)))
    await store.add_counts("e", 1, {1000: {"control": more}})
    counts = await store.counts("e", 1)
    five = ArmCounts(requests=50, errors=10, fallbacks=5, latency={0: 20, 37: 30}, scores={-5: 15, 12: 25})
    assert counts == {
        500: {"control": five, "treatment": ArmCounts(requests=5, latency={37: 5})},
        1000: {"control": more},
    }
    assert await store.counts("e", 2) == {}, "each epoch has its own"


@scenario
async def test_what_a_swap_forgets_is_gone_with_it_and_stays_where_it_fails(store, redis):
    for epoch in (1, 2, 3):
        await store.add_counts("e", epoch, {500: {"control": ArmCounts(requests=epoch)}})
    await store.publish_results("e", b"{}")
    assert not await store.swap(5, 6, b"x", {}, keys_of("e", 2))
    assert await store.counts("e", 2)
    assert await store.swap(0, 1, b"x", {}, keys_of("e", 2))
    assert (await store.counts("e", 1), await store.counts("e", 2), await store.results("e")) == ({}, {}, None)
    assert await store.counts("e", 3)


@scenario
async def test_counts_do_not_stay_for_ever(store, redis):
    await store.add_counts("e", 1, {500: {"control": ArmCounts(requests=1)}})
    left_s = int(await redis.execute_command("TTL", KEYS[4]))
    assert experiment_store.COUNTS_KEPT_S - 60 < left_s <= experiment_store.COUNTS_KEPT_S


# The lease -----------------------------------------------------------------------------------------------------------


@scenario
async def test_one_holds_the_lease_and_keeps_it(store, redis):
    assert await store.take_lease("a")
    assert not await store.take_lease("b")
    assert await store.take_lease("a")
    assert 0 < int(await redis.execute_command("PTTL", LEASE)) <= LEASE_MS


@scenario
async def test_a_lease_that_is_given_back_is_free_at_once_and_only_its_holder_gives_it_back(store, redis):
    await store.take_lease("a")
    await store.give_lease_back("b")
    assert not await store.take_lease("b")
    await store.give_lease_back("a")
    assert await store.take_lease("b")


def test_the_lease_of_a_dead_holder_passes_on_within_its_time(single, monkeypatch):
    monkeypatch.setattr(experiment_store, "LEASE_MS", 150)

    @scenario
    async def run(store: ExperimentStore, redis: Any) -> None:
        assert await store.take_lease("dead")
        async with asyncio.timeout(2):
            while not await store.take_lease("heir"):
                assert int(await redis.execute_command("PTTL", LEASE)) <= 150
        assert not await store.take_lease("dead")

    run(single)


# Results and acknowledgements ----------------------------------------------------------------------------------------


@scenario
async def test_results_are_kept_as_they_came(store, redis):
    assert await store.results("e") is None
    await store.publish_results("e", b'{"a": 1}')
    await store.publish_results("e", b'{"a": 2}')
    assert await store.results("e") == b'{"a": 2}'


@scenario
async def test_each_instance_acknowledges_for_itself_until_it_is_forgotten(store, redis):
    await store.acknowledge("a", 3, 17)
    await store.acknowledge("b", 4, 18)
    assert await store.acknowledged() == {"a": (3, 17), "b": (4, 18)}
    await store.forget("a", "never-there")
    assert await store.acknowledged() == {"b": (4, 18)}


# What is wrong -------------------------------------------------------------------------------------------------------


@scenario
async def test_hostile_bytes_are_refused_as_such_and_nothing_else_fails(store, redis):
    for value in HOSTILE:
        await put_all(redis, value)
        for what, read in readings(store).items():
            with pytest.raises(StoreUnavailable, match="cannot be read"):
                pytest.fail(f"{what}: {value[:20]!r} was read as {await read()!r}")


@scenario
async def test_a_key_of_another_kind_is_refused_as_such(store, redis):
    for key in KEYS:
        await redis.execute_command("DEL", key)
        await redis.execute_command("SADD", key, "a set")
    for read in (*readings(store).values(), lambda: store.take_lease("a"), lambda: store.swap(0, 1, b"x", {})):
        with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
            await read()


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_redis_that_is_away_is_told_in_time_whatever_is_asked_of_it(tmp_path, monkeypatch, fault):
    monkeypatch.setattr(experiment_store, "TIMEOUT_S", 0.2)

    async def run(redis: EmbeddedRedis) -> None:
        async with opened(redis.url) as client:
            store = ExperimentStore(client)
            assert await store.swap(0, 1, b"one", {})
            os.kill(redis.pid, fault)
            asked: list[Coroutine[Any, Any, Any]] = [
                store.read(),
                store.swap(1, 2, b"two", {}),
                store.audit(1),
                store.acknowledge("a", 1, 1),
                store.take_lease("a"),
                store.add_counts("e", 1, {1: {"a": ArmCounts(requests=1)}}),
                store.publish_results("e", b"{}"),
            ]
            async with asyncio.timeout(2):
                answers = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(answer) for answer in answers} == {StoreUnavailable}, answers

    with EmbeddedRedis(tmp_path / "redis") as redis:
        try:
            asyncio.run(run(redis))
        finally:
            if fault is signal.SIGSTOP:
                os.kill(redis.pid, signal.SIGCONT)


def test_a_change_while_redis_is_away_is_unavailable_and_leaves_in_force_what_is(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment_store, "TIMEOUT_S", 0.2)

    async def run(redis: EmbeddedRedis) -> None:
        async with opened(redis.url) as client:
            one = Instance(tmp_path / "state", ExperimentStore(client))
            await one.changes.put("e", document(), 0, ANA, dry_run=False)
            os.kill(redis.pid, signal.SIGKILL)
            with pytest.raises(ExperimentsUnavailable, match="nothing was changed"):
                await one.changes.put("e", document(enrol_bp=1), 1, ANA, dry_run=False)
            await one.live.look()
            assert one.live.problem is not None
            assert one.live.register.revision == 1

    with EmbeddedRedis(tmp_path / "redis") as redis:
        asyncio.run(run(redis))
