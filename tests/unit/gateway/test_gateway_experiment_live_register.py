import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from experiments.register import FORMAT, Register, encode, put
from gateway.experimentation import live_register
from gateway.experimentation.experiment_store import Stored
from gateway.experimentation.live_register import ACKNOWLEDGE_EVERY_S, FILE, FORGOTTEN_AFTER_S, SILENT_AFTER_S
from tests.unit.gateway.experiment_fakes import IN_TIME_S, FakeStore, Instance, becomes, document
from tests.unit.gateway.gateway_fakes import in_loop

UNREADABLE = json.dumps({"format": FORMAT + 1, "revision": 9, "experiments": {}}).encode()


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def one(store, tmp_path) -> Instance:
    return Instance(tmp_path / "one", store)


@pytest.fixture
def other(store, tmp_path) -> Instance:
    return Instance(tmp_path / "other", store, "other")


@pytest.fixture
def quick(monkeypatch) -> None:
    """Look, and acknowledge, all the time."""
    monkeypatch.setattr(live_register, "LOOK_EVERY_S", 0.002)
    monkeypatch.setattr(live_register, "NOTICE_S", 0.001)


@pytest.fixture
def by_news_alone(monkeypatch) -> None:
    monkeypatch.setattr(live_register, "LOOK_EVERY_S", 600.0)
    monkeypatch.setattr(live_register, "NOTICE_S", 0.001)


def register_of(revision: int, **changed) -> bytes:
    """Encode a register of one experiment with that revision."""
    return encode(put(Register(revision=revision - 1), document(**changed), 0).register)


def keep(instance_directory: Path, data: bytes) -> None:
    """Leave a state file of an earlier run."""
    instance_directory.mkdir(exist_ok=True)
    (instance_directory / FILE).write_bytes(data)


def kept_revision(instance_directory: Path) -> int | None:
    file = instance_directory / FILE
    return json.loads(file.read_bytes())["revision"] if file.exists() else None


@asynccontextmanager
async def started(*instances: Instance) -> AsyncIterator[None]:
    for instance in instances:
        await instance.live.start()
    try:
        yield
    finally:
        for instance in instances:
            await instance.live.close()


# Following -----------------------------------------------------------------------------------------------------------


@in_loop
async def test_another_instances_change_is_in_force_by_its_news_alone(one, other, by_news_alone):
    async with started(one, other):
        await becomes(lambda: len(one.store._news) == 2)
        await other.put()
        await becomes(lambda: one.live.register.revision == 1)
    assert [register.revision for register in one.in_force] == [1]


@in_loop
async def test_a_change_whose_news_is_lost_is_found_by_looking(one, other, store, quick):
    store.silent = True
    async with started(one, other):
        await other.put()
        await becomes(lambda: one.live.register.revision == 1)


@in_loop
async def test_an_instances_own_change_is_in_force_at_once_and_only_once(one, by_news_alone):
    async with started(one):
        assert await one.put() == 1
        assert one.live.register.revision == 1
        await one.live.look()
    assert len(one.in_force) == 1


@in_loop
async def test_what_is_read_late_does_not_undo_a_later_revision(one):
    await one.put()
    await one.put(expected=1, enrol_bp=5)
    later = one.live.register
    one.live.take(one.in_force[0])
    assert one.live.register is later


@in_loop
async def test_after_a_time_away_the_store_is_followed_again(one, other, store, quick):
    async with started(one, other):
        await other.put()
        await becomes(lambda: one.live.register.revision == 1)
        store.away = "Redis is away"
        await becomes(lambda: one.live.problem is not None)
        assert (one.live.problem, one.live.register.revision) == ("Redis is away", 1)
        one.clock.now_s += 30
        assert one.live.age_s == 30.0
        store.away = None
        await becomes(lambda: one.live.problem is None)
        assert one.live.age_s == 0.0
        await other.put(expected=1, enrol_bp=5)
        await becomes(lambda: one.live.register.revision == 2)


def test_a_time_away_is_logged_once(one, store, caplog):
    @in_loop
    async def scenario() -> None:
        await one.put()
        await one.live.look()
        store.away = "Redis is away"
        for _ in range(5):
            await one.live.look()
        store.away = None
        await one.live.look()

    with caplog.at_level(logging.INFO):
        scenario()
    told = [record.message for record in caplog.records]
    assert told.count("the experiments cannot be read") == 1
    assert told.count("the experiments can be read again") == 1


# The state directory -------------------------------------------------------------------------------------------------


@in_loop
async def test_what_comes_into_force_is_kept_on_disk(one, other, tmp_path, quick):
    async with started(one, other):
        await other.put()
        await becomes(lambda: kept_revision(tmp_path / "one") == 1)


@in_loop
async def test_an_instances_own_change_is_kept_on_disk_too(one, tmp_path):
    async with started(one):
        await one.put()
        await one.put(expected=1, enrol_bp=5)
        await one.live.look()
        assert kept_revision(tmp_path / "one") == 2


@pytest.mark.parametrize("how", ["away", "hanging"])
def test_while_redis_is_away_an_instance_starts_from_its_disk_and_heals(one, store, tmp_path, monkeypatch, quick, how):
    monkeypatch.setattr(live_register, "START_PATIENCE_S", 0.02)
    keep(tmp_path / "one", register_of(7))
    if how == "away":
        store.away = "Redis is away"
    store.hangs = how == "hanging"
    store.stored = Stored(8, register_of(8, enrol_bp=5))

    @in_loop
    async def scenario() -> None:
        await one.live.start()
        assert (one.live.register.revision, one.live.from_disk) == (7, True)
        assert one.live.problem is not None
        assert [register.revision for register in one.in_force] == [7]
        store.away, store.hangs = None, False
        await one.live.look()
        assert (one.live.register.revision, one.live.from_disk, one.live.problem) == (8, False, None)
        await one.live.close()

    scenario()


@in_loop
async def test_without_a_state_file_an_instance_starts_without_experiments(one, store, quick):
    store.away = "Redis is away"
    async with started(one):
        assert (one.live.register.revision, one.live.from_disk, one.in_force) == (0, False, [])
        store.away = None
        await one.live.look()
        assert one.live.problem is None


@pytest.mark.parametrize("data", [b"", b"\0{garbage", b"[]", UNREADABLE, register_of(7)[:-10]])
def test_a_state_file_that_cannot_be_read_is_ignored_with_a_warning(one, store, tmp_path, caplog, data):
    keep(tmp_path / "one", data)
    store.away = "Redis is away"

    @in_loop
    async def scenario() -> None:
        async with started(one):
            assert one.live.register.revision == 0

    scenario()
    assert "a state file is ignored" in caplog.text
    assert (tmp_path / "one" / FILE).read_bytes() == data


@pytest.mark.parametrize("in_store", [3, 7, 9])
def test_what_redis_has_goes_before_what_is_only_on_disk(one, store, tmp_path, in_store):
    keep(tmp_path / "one", register_of(7))
    store.away = "Redis is away"

    @in_loop
    async def scenario() -> None:
        await one.live.start()
        store.away, store.stored = None, Stored(in_store, register_of(in_store, enrol_bp=5))
        await one.live.look()
        await one.live.look()
        assert one.live.register.entries["e"].experiment.enrol_bp == 5
        assert (one.live.register.revision, one.live.from_disk, store.entries) == (in_store, False, [])
        await one.live.close()

    scenario()


@in_loop
async def test_of_two_registers_of_one_revision_that_of_redis_goes_before_that_of_the_disk(one, store, tmp_path):
    keep(tmp_path / "one", register_of(7))
    async with started(one):
        assert one.live.from_disk, "the store is empty"
        store.stored = Stored(7, register_of(7, enrol_bp=5))
        await one.live.look()
        assert (one.live.register.entries["e"].experiment.enrol_bp, one.live.from_disk) == (5, False)


# A store that has lost something -------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [Stored(0, None), Stored(1, register_of(1, enrol_bp=5))])
def test_a_store_that_was_emptied_or_set_back_is_given_the_last_good_ones(one, store, left):
    @in_loop
    async def scenario() -> None:
        await one.put()
        await one.put(expected=1)
        last = store.stored
        store.stored = left
        await one.live.look()
        assert store.stored == last
        assert one.live.register.revision == 2
        restored = {"action": "restore", "actor": "one", "revision": 2, "at": "1970-01-01T00:16:40+00:00"}
        assert {key: store.entries[-1].get(key) for key in restored} == restored
        assert str(left.revision) in store.entries[-1]["reason"]

    scenario()


@in_loop
async def test_an_emptied_store_is_given_what_an_instance_has_on_disk(one, store, tmp_path):
    keep(tmp_path / "one", register_of(7))
    async with started(one):
        await one.live.look()
        assert (store.stored.revision, one.live.from_disk) == (7, False)


@in_loop
async def test_of_several_instances_the_highest_revision_is_given_back_whoever_has_it(one, other, store, quick):
    await one.put()
    await other.live.look()
    await other.put(expected=1, enrol_bp=5)
    store.stored = Stored(0, None)
    assert one.live.register.revision == 1
    await one.live.look()
    assert store.stored.revision == 1
    await other.live.look()
    await one.live.look()
    assert (store.stored.revision, one.live.register.revision, other.live.register.revision) == (2, 2, 2)


@in_loop
async def test_instances_that_find_an_emptied_store_together_give_it_back_once(one, other, store):
    await one.put()
    await other.live.look()
    store.stored = Stored(0, None)
    await asyncio.gather(one.live.look(), other.live.look())
    assert [entry["action"] for entry in store.entries] == ["put", "restore"]
    assert store.stored.revision == 1


@in_loop
async def test_what_this_release_cannot_read_leaves_the_last_good_ones_and_is_not_written_over(one, store, tmp_path):
    async with started(one):
        await one.put()
        await one.live.look()
        store.stored = Stored(9, UNREADABLE)
        await one.live.look()
        assert "format" in one.live.problem
        assert (one.live.register.revision, store.stored.data) == (1, UNREADABLE)
        assert kept_revision(tmp_path / "one") == 1


@in_loop
async def test_at_the_start_what_cannot_be_read_leaves_what_is_on_disk(one, store, tmp_path):
    keep(tmp_path / "one", register_of(7))
    store.stored = Stored(9, UNREADABLE)
    async with started(one):
        await one.live.look()
        assert "format" in one.live.problem
        assert (one.live.register.revision, one.live.from_disk) == (7, True)
    assert (store.stored.data, kept_revision(tmp_path / "one")) == (UNREADABLE, 7)


# Who serves by which revision ----------------------------------------------------------------------------------------


@in_loop
async def test_a_revision_is_acknowledged_as_soon_as_it_is_in_force(one, other, store, by_news_alone):
    async with started(one, other):
        await becomes(lambda: store.told.keys() == {"one", "other"} and len(store._news) == 2)
        await other.put()
        await becomes(lambda: {name: revision for name, (revision, _) in store.told.items()} == {"one": 1, "other": 1})
    assert store.told == {}, "who ends is missed by nobody"


@in_loop
async def test_an_acknowledgement_is_repeated_so_that_it_does_not_grow_old(one, store, quick):
    async with started(one):
        await becomes(lambda: "one" in store.told)
        one.clock.now_s += ACKNOWLEDGE_EVERY_S
        await becomes(lambda: store.told["one"] == (0, one.now_us()))


@in_loop
async def test_an_instance_that_is_silent_is_not_counted_and_is_struck_at_last(one, store):
    age_us = int(SILENT_AFTER_S * 1e6)
    store.told = {
        "lives": (3, one.now_us() - age_us),
        "silent": (2, one.now_us() - age_us - 1_000),
        "gone": (1, one.now_us() - int(FORGOTTEN_AFTER_S * 1e6) - 1_000),
        "ahead": (4, one.now_us() + 500),
    }
    assert await one.live.acknowledged() == {
        "lives": {"revision": 3, "age_s": SILENT_AFTER_S},
        "ahead": {"revision": 4, "age_s": 0.0},
    }
    assert set(store.told) == {"lives", "silent", "ahead"}


@in_loop
async def test_an_instance_ends_though_its_first_cancellation_is_lost_as_redis_py_may_lose_it(one, store, quick):
    waits, lost = False, 0

    async def lose_one(*_: object) -> None:
        nonlocal waits, lost
        while not lost:
            try:
                waits = True
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1

    async with started(one):
        store.acknowledge = lose_one
        one.clock.now_s += ACKNOWLEDGE_EVERY_S
        await becomes(lambda: waits)
        async with asyncio.timeout(IN_TIME_S):
            await one.live.close()
    assert lost == 1


@in_loop
async def test_an_instance_that_ends_while_redis_is_away_does_not_wait_for_it(one, store):
    await one.live.start()
    store.away = "Redis is away"
    await one.live.look()
    store.hangs = True
    async with asyncio.timeout(1):
        await one.live.close()


@in_loop
async def test_an_acknowledgement_that_cannot_be_written_is_written_later(one, store, quick):
    store.away = "Redis is away"
    async with started(one):
        await becomes(lambda: one.live._acknowledged[0] == 0)
        store.away = None
        one.clock.now_s += ACKNOWLEDGE_EVERY_S
        await becomes(lambda: "one" in store.told)
