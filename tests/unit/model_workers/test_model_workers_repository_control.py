import asyncio

import pytest

from model_workers import repository_control
from model_workers.errors import (
    ExecutionFailed,
    LoadFailed,
    NotReady,
    OperationsFull,
    RepositoryError,
    ShuttingDown,
    UnknownModel,
)
from model_workers.operations import OPERATIONS_WAITING_MAX
from tests.unit.model_workers.repository_bench import RepositoryBench, until


def run(scenario, *arguments, **settings):
    """Run a scenario on a bench of its own."""

    async def on_a_loop():
        await scenario(RepositoryBench(*arguments, **settings))

    asyncio.run(on_a_loop())


def test_the_policy_is_applied_to_the_whole_repository(tmp_path):
    async def scenario(bench):
        bench.publish("churn@9", "churn@10", "fraud@1")
        await bench.control.apply_policy()
        assert bench.served == ["churn@10", "fraud@1"]
        assert bench.states == {"churn@9": "UNAVAILABLE", "churn@10": "READY", "fraud@1": "READY"}
        assert bench.reason("churn@9") == "not loaded"
        assert [entry.version for entry in bench.control.index(ready_only=True)] == ["10", "1"]

    run(scenario, tmp_path, latest=1)


def test_a_new_version_is_ready_before_the_old_one_leaves(tmp_path):
    async def scenario(bench):
        bench.publish("churn@1")
        await bench.control.apply_policy()
        bench.publish("churn@2")
        bench.may_open.clear()
        applying = asyncio.create_task(bench.control.apply_policy())
        await until(lambda: "opening churn@2" in bench.events)
        assert bench.states == {"churn@1": "READY", "churn@2": "LOADING"}
        assert bench.models.version("churn", None).manifest.version == "1"
        bench.may_close.clear()
        bench.may_open.set()
        await until(lambda: bench.states["churn@1"] == "UNLOADING")
        assert bench.models.version("churn", None).manifest.version == "2"
        bench.may_close.set()
        await applying
        assert bench.events == ["opening churn@1", "opening churn@2", "closed churn@1"]
        assert bench.states == {"churn@1": "UNAVAILABLE", "churn@2": "READY"}

    run(scenario, tmp_path, latest=1)


def test_a_damaged_new_version_leaves_the_old_one_in_place_and_is_tried_again_only_when_its_files_change(tmp_path):
    async def scenario(bench):
        bench.publish("churn@1")
        await bench.control.apply_policy()
        bench.publish("churn@2")
        bench.damage("churn@2")
        await bench.control.apply_policy()
        await bench.control.apply_policy()
        assert bench.served == ["churn@1"]
        assert bench.states == {"churn@1": "READY", "churn@2": "UNAVAILABLE"}
        assert bench.reason("churn@2") == "it is damaged"
        assert bench.events.count("opening churn@2") == 1
        bench.mend("churn@2")
        await bench.control.apply_policy()
        assert bench.served == ["churn@2"]
        assert bench.reason("churn@2") == ""

    run(scenario, tmp_path, latest=1)


def test_an_explicit_load_tries_again_what_failed_and_tells_why_it_fails(tmp_path):
    async def scenario(bench):
        bench.publish("churn@1", "churn@2")
        bench.damage("churn@2")
        await bench.control.apply_policy()
        with pytest.raises(LoadFailed, match=r"^churn@2 was not loaded: it is damaged"):
            await bench.control.load("churn")
        assert bench.events.count("opening churn@2") == 2
        assert bench.served == ["churn@1"]

    run(scenario, tmp_path)


def test_the_only_version_of_a_model_serves_on_when_its_folder_is_gone_and_that_is_told_once(tmp_path, caplog):
    async def scenario(bench):
        bench.publish("churn@1")
        await bench.control.apply_policy()
        bench.withdraw("churn@1")
        await bench.control.apply_policy()
        await bench.control.apply_policy()
        assert bench.served == ["churn@1"]
        assert caplog.text.count("has gone from the repository and serves on") == 1

    run(scenario, tmp_path)


def test_a_version_whose_folder_is_gone_leaves_where_another_one_is_ready(tmp_path):
    async def scenario(bench):
        bench.publish("churn@1", "churn@2")
        await bench.control.apply_policy()
        bench.withdraw("churn@2")
        await bench.control.apply_policy()
        assert bench.served == ["churn@1"]
        assert bench.states == {"churn@1": "READY"}

    run(scenario, tmp_path)


def test_a_version_that_failed_and_is_gone_is_forgotten(tmp_path):
    async def scenario(bench):
        bench.publish("churn@1")
        bench.damage("churn@1")
        await bench.control.apply_policy()
        assert 'sekisho_worker_ready{model="churn",version="1"} 0.0' in bench.exposition()
        bench.withdraw("churn@1")
        await bench.control.apply_policy()
        assert bench.states == {}
        await bench.control.refresh()
        assert "churn" not in bench.exposition()
        with pytest.raises(UnknownModel):
            bench.models.version("churn", "1")

    run(scenario, tmp_path)


def test_a_repository_that_is_gone_is_an_error_and_what_is_loaded_serves_on(tmp_path):
    async def scenario(bench):
        bench.publish("churn@1")
        await bench.control.apply_policy()
        bench.folder.rename(tmp_path / "elsewhere")
        with pytest.raises(RepositoryError, match="is not a directory"):
            await bench.control.apply_policy()
        assert bench.served == ["churn@1"]

    run(scenario, tmp_path / "repository")


def test_an_unloaded_version_is_not_brought_back_until_it_is_loaded(tmp_path):
    async def scenario(bench):
        bench.publish("churn@1", "churn@2")
        await bench.control.apply_policy()
        await bench.control.unload("churn", "2")
        await bench.control.apply_policy()
        assert bench.served == ["churn@1"]
        await bench.control.load("churn", "2")
        await bench.control.apply_policy()
        assert bench.served == ["churn@1", "churn@2"]

    run(scenario, tmp_path)


def test_an_unloaded_model_stays_away_whatever_is_published_of_it(tmp_path):
    async def scenario(bench):
        bench.publish("churn@1")
        await bench.control.apply_policy()
        await bench.control.unload("churn")
        bench.publish("churn@2")
        await bench.control.apply_policy()
        assert bench.served == []
        await bench.control.load("churn")
        assert bench.served == ["churn@1", "churn@2"]

    run(scenario, tmp_path)


def test_a_model_that_the_policy_does_not_name_can_be_loaded_and_stays(tmp_path):
    async def scenario(bench):
        bench.publish("churn@1", "fraud@1", "fraud@2")
        await bench.control.apply_policy()
        assert bench.served == ["churn@1"]
        await bench.control.load("fraud", "1")
        await bench.control.apply_policy()
        assert bench.served == ["churn@1", "fraud@1"]

    run(scenario, tmp_path, "churn")


def test_a_version_that_is_served_is_loaded_anew_and_the_old_load_serves_until_the_new_one_does(tmp_path):
    async def scenario(bench):
        bench.publish("churn@1")
        await bench.control.apply_policy()
        first = bench.models.version("churn", "1")
        bench.may_open.clear()
        loading = asyncio.create_task(bench.control.load("churn", "1"))
        await until(lambda: bench.events.count("opening churn@1") == 2)
        assert bench.models.version("churn", "1") is first
        assert bench.states == {"churn@1": "READY"}
        bench.may_open.set()
        await loading
        assert bench.models.version("churn", "1") is not first
        assert bench.events[-1] == "closed churn@1"

    run(scenario, tmp_path)


def test_where_a_load_anew_fails_the_old_one_serves_on_and_the_index_tells_why(tmp_path):
    async def scenario(bench):
        bench.publish("churn@1")
        await bench.control.apply_policy()
        first = bench.models.version("churn", "1")
        bench.damage("churn@1")
        with pytest.raises(LoadFailed):
            await bench.control.load("churn", "1")
        assert bench.models.version("churn", "1") is first
        assert bench.states == {"churn@1": "READY"}
        assert bench.reason("churn@1") == "it is damaged"
        assert 'sekisho_worker_ready{model="churn",version="1"} 1.0' in bench.exposition()

    run(scenario, tmp_path)


@pytest.mark.parametrize(
    ("model", "version", "said"),
    [
        ("fraud", None, "fraud is not in the repository; it holds: churn"),
        ("churn", "2", "churn@2 is not in the repository; it holds: churn@1"),
        ("../churn", None, "../churn is not in the repository; it holds: churn"),
    ],
)
def test_what_the_repository_does_not_hold_is_not_loaded(tmp_path, model, version, said):
    async def scenario(bench):
        bench.publish("churn@1")
        with pytest.raises(UnknownModel) as refusal:
            await bench.control.load(model, version)
        assert str(refusal.value) == said

    run(scenario, tmp_path)


def test_an_unload_of_what_is_nowhere_is_refused_and_one_of_what_is_not_loaded_is_no_error(tmp_path):
    async def scenario(bench):
        bench.publish("churn@1")
        await bench.control.unload("churn", "1")
        for model, version in (("churn", "2"), ("fraud", None)):
            with pytest.raises(UnknownModel):
                await bench.control.unload(model, version)

    run(scenario, tmp_path)


def test_one_load_runs_at_a_time(tmp_path):
    async def scenario(bench):
        bench.publish("churn@1", "fraud@1")
        bench.may_open.clear()
        loads = [asyncio.create_task(bench.control.load(model)) for model in ("churn", "fraud")]
        await until(lambda: bench.events)
        assert bench.events == ["opening churn@1"]
        bench.may_open.set()
        await asyncio.gather(*loads)
        assert bench.events == ["opening churn@1", "opening fraud@1"]

    run(scenario, tmp_path)


def test_more_operations_than_may_wait_are_refused_and_those_that_wait_are_done(tmp_path):
    async def scenario(bench):
        bench.publish("churn@1")
        bench.may_open.clear()
        waiting = [asyncio.create_task(bench.control.load("churn")) for _ in range(OPERATIONS_WAITING_MAX)]
        await until(lambda: bench.events)
        with pytest.raises(OperationsFull):
            await bench.control.unload("churn")
        bench.may_open.set()
        await asyncio.gather(*waiting)
        assert bench.events == ["opening churn@1"]
        await bench.control.unload("churn")

    run(scenario, tmp_path)


def test_a_caller_that_hangs_up_does_not_leave_a_version_half_loaded(tmp_path):
    async def scenario(bench):
        bench.publish("churn@1")
        bench.may_open.clear()
        caller = asyncio.create_task(bench.control.load("churn"))
        await until(lambda: bench.events)
        caller.cancel()
        await asyncio.wait({caller})
        bench.may_open.set()
        await until(lambda: bench.served == ["churn@1"])

    run(scenario, tmp_path)


def test_a_version_that_does_not_leave_does_not_hold_up_the_next_load(tmp_path, monkeypatch):
    monkeypatch.setattr(repository_control, "CLOSE_S_MAX", 0)

    async def scenario(bench):
        bench.publish("churn@1", "fraud@1")
        await bench.control.load("churn")
        bench.may_close.clear()
        await bench.control.unload("churn")
        await bench.control.load("fraud")
        assert bench.states == {"churn@1": "UNLOADING", "fraud@1": "READY"}
        bench.may_close.set()
        await until(lambda: bench.states["churn@1"] == "UNAVAILABLE")
        assert 'model="churn",version' not in bench.exposition()

    run(scenario, tmp_path)


def test_the_series_of_a_version_outlast_an_unload_while_an_earlier_load_of_it_still_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(repository_control, "CLOSE_S_MAX", 0)

    async def scenario(bench):
        bench.publish("churn@1")
        await bench.control.load("churn")
        at_once, bench.may_close = bench.may_close, asyncio.Event()
        await bench.control.load("churn", "1")
        bench.may_close = at_once
        await bench.control.unload("churn")
        await until(lambda: bench.events[-1] == "closed churn@1")
        assert 'model="churn",version="1"' in bench.exposition()
        assert bench.states["churn@1"] == "UNLOADING"

    run(scenario, tmp_path)


def test_a_fault_of_the_program_is_raised_as_it_is_and_the_version_is_not_left_loading(tmp_path):
    async def scenario(bench):
        bench.publish("churn@1")
        bench.faults["churn@1"] = KeyError("a fault")
        with pytest.raises(KeyError):
            await bench.control.load("churn")
        assert bench.states == {"churn@1": "UNAVAILABLE"}

    run(scenario, tmp_path)


def test_counters_outlast_a_load_anew_and_vanish_with_the_version(tmp_path):
    async def scenario(bench):
        bench.publish("churn@1")
        await bench.control.load("churn")
        bench.metrics.requests.add("churn", "1", amount=7)
        bench.metrics.failures.add("churn", "1", "expired")
        await bench.control.load("churn", "1")
        assert 'sekisho_worker_requests_total{model="churn",version="1"} 7.0' in bench.exposition()
        await bench.control.unload("churn", "1")
        assert 'version="1"' not in bench.exposition()
        assert 'sekisho_worker_loads_total{model="churn",outcome="loaded"} 2.0' in bench.exposition()

    run(scenario, tmp_path)


def test_an_abort_reaches_versions_that_serve_and_versions_that_leave(tmp_path):
    async def scenario(bench):
        bench.publish("churn@1", "fraud@1")
        await bench.control.apply_policy()
        bench.may_close.clear()
        leaving = asyncio.create_task(bench.control.unload("fraud"))
        await until(lambda: bench.states["fraud@1"] == "UNLOADING")
        bench.control.abort()
        with pytest.raises(ShuttingDown):
            await leaving
        assert {"aborted churn@1", "aborted fraud@1"} <= set(bench.events)
        bench.may_close.set()
        await until(lambda: "closed fraud@1" in bench.events)

    run(scenario, tmp_path)


def test_no_more_versions_are_served_than_the_limit_and_the_one_too_many_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(repository_control, "VERSIONS_MAX", 2)

    async def scenario(bench):
        bench.publish("churn@1", "churn@2", "churn@3")
        await bench.control.apply_policy()
        assert bench.served == ["churn@1", "churn@2"]
        assert bench.states["churn@3"] == "UNAVAILABLE"
        assert "2 versions are served already" in bench.reason("churn@3")
        await bench.control.load("churn", "1")

    run(scenario, tmp_path)


def test_why_a_version_is_not_ready_names_it_once(tmp_path):
    async def scenario(bench):
        bench.publish("churn@1", "churn@2")
        bench.damage("churn@1")
        bench.faults["churn@2"] = ExecutionFailed("churn", "2", 1, "too wide")
        await bench.control.apply_policy()
        for version, said in (("1", "it is damaged"), ("2", "failed on 1 row: too wide")):
            with pytest.raises(NotReady) as refusal:
                bench.models.version("churn", version)
            assert str(refusal.value) == f"churn@{version} is not ready: {said}"

    run(scenario, tmp_path)


def test_a_load_that_goes_on_for_long_is_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(repository_control, "STILL_LOADING_S", 0.001)

    async def scenario(bench):
        bench.publish("churn@1")
        bench.may_open.clear()
        loading = asyncio.create_task(bench.control.load("churn"))
        await until(lambda: "still loading churn@1" in caplog.text)
        bench.may_open.set()
        await loading
        assert bench.served == ["churn@1"]

    run(scenario, tmp_path)


def test_a_folder_that_cannot_be_looked_into_takes_nothing_away_and_is_told_once(tmp_path, caplog):
    async def scenario(bench):
        bench.publish("churn@1", "churn@2")
        (tmp_path / "churn" / "8").symlink_to("8")
        (tmp_path / "fs").symlink_to("fs")
        await bench.control.apply_policy()
        await bench.control.apply_policy()
        assert bench.models.versions_of("churn") == ["1", "2"]
        for name in ("churn/8", "fs"):
            assert caplog.text.count(f"{tmp_path / name} was passed over") == 1

    run(scenario, tmp_path)


def test_a_served_version_whose_folder_cannot_be_looked_into_any_more_serves_on(tmp_path):
    async def scenario(bench):
        bench.publish("churn@1", "churn@2")
        await bench.control.apply_policy()
        bench.withdraw("churn@2")
        (tmp_path / "churn" / "2").symlink_to("2")
        await bench.control.apply_policy()
        assert bench.models.versions_of("churn") == ["2"]

    run(scenario, tmp_path, latest=1)


def test_where_no_selected_version_can_be_loaded_the_next_lower_one_that_can_stands_in_until_one_can(tmp_path, caplog):
    async def scenario(bench):
        bench.publish("churn@1", "churn@2", "churn@3")
        bench.damage("churn@2")
        bench.damage("churn@3")
        await bench.control.apply_policy()
        await bench.control.apply_policy()
        assert bench.events == ["opening churn@3", "opening churn@2", "opening churn@1"]
        assert bench.states == {"churn@1": "READY", "churn@2": "UNAVAILABLE", "churn@3": "UNAVAILABLE"}
        assert bench.reason("churn@3") == "it is damaged"
        assert [r.levelname for r in caplog.records if "churn@1 stands in" in r.getMessage()] == ["WARNING"]
        bench.mend("churn@3")
        await bench.control.apply_policy()
        assert bench.states == {"churn@1": "UNAVAILABLE", "churn@2": "UNAVAILABLE", "churn@3": "READY"}

    run(scenario, tmp_path, latest=1)


def test_an_explicit_load_of_a_model_whose_newest_version_is_damaged_fails_and_a_lower_one_stands_in(tmp_path):
    async def scenario(bench):
        bench.publish("churn@1", "churn@2")
        bench.damage("churn@2")
        with pytest.raises(LoadFailed):
            await bench.control.load("churn")
        assert bench.models.versions_of("churn") == ["1"]

    run(scenario, tmp_path, latest=1)


def test_nothing_stands_in_for_a_version_that_was_named_nor_what_was_unloaded(tmp_path):
    async def scenario(bench):
        bench.publish("churn@1", "churn@2", "fraud@1", "fraud@2")
        bench.damage("churn@2")
        bench.damage("fraud@2")
        await bench.control.unload("fraud", "1")
        await bench.control.apply_policy()
        assert not [*bench.models]

    run(scenario, tmp_path, "churn@2", "fraud", latest=1)
