import asyncio
import logging
from pathlib import Path

import pytest

from feature_store import FeatureStoreUnavailable, RegisteredView, decode_views, encode_views
from gateway.configuration.last_good import StateDirectory
from gateway.configuration.registered_views import FILE, RegisteredViews
from tests.unit.gateway.gateway_fakes import HandClock, in_loop

SNAPSHOT = Path(__file__).parents[2] / "golden" / "feature_views_v1.json"
VIEWS = decode_views(SNAPSHOT.read_bytes())


class Registry:
    """A registry that a test owns."""

    def __init__(self, answer: dict[str, RegisteredView] | Exception | None) -> None:
        self.answer = answer

    async def __call__(self) -> dict[str, RegisteredView]:
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


AWAY = FeatureStoreUnavailable("the registry", "connection refused")


def reading(registry: Registry, directory: Path, clock: HandClock | None = None) -> RegisteredViews:
    def now_us() -> int:
        return int((directory / FILE).stat().st_mtime * 1e6) + 30_000_000

    return RegisteredViews(registry, StateDirectory(directory, now_us), clock or HandClock())


@in_loop
async def test_what_redis_has_is_taken_and_kept(tmp_path):
    views = reading(Registry(VIEWS), tmp_path)
    assert [await views.refresh(), await views.refresh()] == [True, False]
    assert views.views == VIEWS
    assert decode_views((tmp_path / FILE).read_bytes()) == VIEWS


@in_loop
async def test_with_redis_away_at_the_start_the_last_good_views_stand_in_until_it_is_back(tmp_path):
    (tmp_path / FILE).write_bytes(encode_views(VIEWS))
    registry, clock = Registry(AWAY), HandClock()
    views = reading(registry, tmp_path, clock)
    assert await views.refresh()
    assert (views.views, views.from_disk) == (VIEWS, True)
    assert "connection refused" in views.problem
    clock.now_s += 5
    assert views.age_s == pytest.approx(35, abs=0.1)
    registry.answer = dict(list(VIEWS.items())[:1])
    assert await views.refresh()
    assert (views.from_disk, views.problem, views.age_s) == (False, None, 0.0)
    assert views.views == registry.answer


def test_a_redis_that_is_silent_at_the_start_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.configuration.registered_views.START_PATIENCE_S", 0.01)
    (tmp_path / FILE).write_bytes(encode_views(VIEWS))
    views = reading(Registry(None), tmp_path)
    assert asyncio.run(views.refresh())
    assert views.from_disk


@in_loop
async def test_with_redis_away_later_the_views_stay_and_the_file_is_not_read(tmp_path):
    registry = Registry(VIEWS)
    views = reading(registry, tmp_path)
    await views.refresh()
    (tmp_path / FILE).write_bytes(b"other")
    registry.answer = AWAY
    assert not await views.refresh()
    assert (views.views, views.from_disk) == (VIEWS, False)


@pytest.mark.parametrize("started", [False, True], ids=["at the start", "later"])
def test_a_registry_that_was_emptied_takes_no_views_away_and_does_not_overwrite_the_last_good(tmp_path, started):
    registry = Registry(VIEWS if started else {})
    (tmp_path / FILE).write_bytes(encode_views(VIEWS))

    @in_loop
    async def scenario() -> None:
        views = reading(registry, tmp_path)
        await views.refresh()
        registry.answer = {}
        await views.refresh()
        assert views.views == VIEWS
        assert "no views" in views.problem

    scenario()
    assert decode_views((tmp_path / FILE).read_bytes()) == VIEWS


@in_loop
async def test_a_registry_without_views_is_no_problem_where_there_never_were_any(tmp_path):
    views = reading(Registry({}), tmp_path)
    assert not await views.refresh()
    assert (views.problem, views.from_disk) == (None, False)


@pytest.mark.parametrize("content", [b"", b"\0\1\2", b'{"kind": "views", "version": 99, "views": {}}'])
def test_a_corrupt_or_foreign_file_is_ignored_with_a_warning(tmp_path, caplog, content):
    (tmp_path / FILE).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        views = reading(Registry(AWAY), tmp_path)
        assert not asyncio.run(views.refresh())
    assert views.views == {}
    assert "a state file is ignored" in caplog.text


def test_a_registry_that_stays_away_is_logged_once(tmp_path, caplog):
    @in_loop
    async def scenario() -> None:
        views = reading(Registry(AWAY), tmp_path)
        for _ in range(3):
            await views.refresh()

    with caplog.at_level(logging.WARNING):
        scenario()
    assert len(caplog.records) == 1
