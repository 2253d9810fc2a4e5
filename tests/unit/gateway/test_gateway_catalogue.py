import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import Experiment, parse_experiment
from feature_store import decode_views
from gateway.clock import monotonic
from gateway.configuration import catalogue as catalogue_module
from gateway.configuration.catalogue import SETTLE_S, Catalogue
from gateway.configuration.configuration import Configuration
from gateway.configuration.registered_views import FILE
from gateway.configuration.signature_file import encode_signature, signature_file
from gateway.model_signature import signature_of
from tests.unit.gateway.describing_worker import DescribingWorker, around, configuration, eventually, route
from tests.unit.gateway.gateway_fakes import HandClock, in_loop

GOLDEN_VIEWS = Path(__file__).parents[2] / "golden" / "feature_views_v1.json"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(catalogue_module, "TICK_S", 0.005)
    monkeypatch.setattr(catalogue_module, "RETIRE_MARGIN_S", 0.0)
    monkeypatch.setattr("gateway.configuration.version_keeper.LOOK_AGAIN_S", 0.005)


@asynccontextmanager
async def serving(first: Configuration, directory: Path, clock=monotonic, views=None) -> AsyncIterator[Catalogue]:
    catalogue = Catalogue(around(directory, clock, views))
    catalogue.start(first)
    try:
        yield catalogue
    finally:
        await catalogue.close()


def is_ready(catalogue: Catalogue, model: str, version: str) -> bool:
    served = catalogue.models[model].versions.get(version) if model in catalogue.models else None
    return served is not None and served.ready


@in_loop
async def test_a_worker_that_is_silent_delays_no_other_version(tmp_path):
    async with DescribingWorker("m", "1", silent=True) as slow, DescribingWorker("m", "2") as quick_one:
        routes = configuration(m=route({"1": slow.url, "2": quick_one.url}, "2"))
        async with serving(routes, tmp_path) as catalogue:
            assert list(catalogue.models["m"].versions) == ["1", "2"], "all are there from the start, ready or not"
            began = monotonic()
            await eventually("version 2 is ready", lambda: catalogue.ready)
            assert monotonic() - began < 0.9, "the other worker was waited for"
            assert not catalogue.models["m"].names_are_known


@in_loop
async def test_an_added_version_is_served_when_it_is_ready_and_not_before(tmp_path):
    async with (
        DescribingWorker("m", "1") as one,
        DescribingWorker("m", "2", silent=True) as two,
        serving(configuration(m=route({"1": one.url})), tmp_path) as catalogue,
    ):
        await eventually("version 1 is ready", lambda: catalogue.ready)
        before = catalogue.models["m"]
        catalogue.apply(configuration(m=route({"1": one.url, "2": two.url})))
        assert list(catalogue.models["m"].versions) == ["1"]
        assert "m@2" in catalogue.pending
        two.silent = False
        await eventually("version 2 is ready", lambda: is_ready(catalogue, "m", "2"))
        assert list(before.versions) == ["1"], "who began before ends with what they began with"
        assert catalogue.models["m"].versions["1"] is before.versions["1"], "what is the same goes on"
        assert catalogue.pending == {}
        assert catalogue.models["m"].names_are_known


@in_loop
async def test_a_version_that_moves_is_served_from_where_it_was_until_it_can_answer_where_it_is_to_be(tmp_path):
    async with (
        DescribingWorker("m", "1") as here,
        DescribingWorker("m", "1", silent=True) as there,
        serving(configuration(m=route({"1": here.url})), tmp_path) as catalogue,
    ):
        await eventually("it is ready", lambda: catalogue.ready)
        before = catalogue.models["m"].versions["1"]
        catalogue.apply(configuration(m=route({"1": there.url})))
        catalogue.settle()
        assert catalogue.models["m"].versions["1"] is before
        there.silent = False
        await eventually("it has moved", lambda: catalogue.models["m"].versions["1"] is not before)
        assert catalogue.ready
        await eventually("the worker before is let go", lambda: here.connections == 0)


@in_loop
async def test_a_version_that_is_moved_to_where_nobody_answers_stays_where_it_was(tmp_path):
    clock = HandClock()
    async with (
        DescribingWorker("m", "1") as here,
        serving(configuration(m=route({"1": here.url})), tmp_path, clock) as catalogue,
    ):
        await eventually("it is ready", lambda: catalogue.ready)
        catalogue.apply(configuration(m=route({"1": NOWHERE}, deadline_ms=7)))
        clock.now_s += SETTLE_S + 1
        await eventually("the rest of the route is in force", lambda: catalogue.models["m"].route.deadline_ms == 7)
        assert catalogue.ready
        assert "m@1" in catalogue.pending
        catalogue.apply(configuration(m=route({"1": here.url})))
        assert catalogue.pending == {}, "what is taken back is waited for no longer"


@in_loop
async def test_another_default_is_taken_with_its_whole_route_when_it_can_answer(tmp_path):
    clock = HandClock()
    async with (
        DescribingWorker("m", "1") as one,
        DescribingWorker("m", "2", silent=True) as two,
        serving(configuration(m=route({"1": one.url})), tmp_path, clock) as catalogue,
    ):
        await eventually("version 1 is ready", lambda: catalogue.ready)
        catalogue.apply(configuration(m=route({"2": two.url}, "2", deadline_ms=7)))
        clock.now_s += SETTLE_S + 1
        catalogue.settle()
        live = catalogue.models["m"].route
        assert (live.default_version, live.deadline_ms) == ("1", 1), "however long it takes"
        two.silent = False
        await eventually("version 2 serves", lambda: catalogue.models["m"].route.default_version == "2")
        assert (list(catalogue.models["m"].versions), catalogue.ready) == (["2"], True)
        await eventually("version 1 is let go", lambda: one.connections == 0)


@in_loop
async def test_where_the_default_cannot_answer_anyway_another_route_is_not_held_back(tmp_path):
    clock = HandClock()
    async with serving(configuration(m=route({"1": NOWHERE})), tmp_path, clock) as catalogue:
        catalogue.apply(configuration(m=route({"2": "http://127.0.0.1:10"}, "2")))
        clock.now_s += SETTLE_S + 1
        await eventually("it is in force", lambda: catalogue.models["m"].route.default_version == "2")


@in_loop
async def test_an_experiment_begins_when_its_versions_can_answer_or_are_overdue(tmp_path):
    clock = HandClock()
    experiment = parse_experiment(
        {
            "experiment": "e",
            "model": "m",
            "unit": "user",
            "state": "running",
            "variants": [{"name": "a", "version": "1", "bp": 5000}, {"name": "b", "version": "2", "bp": 5000}],
        }
    )
    async with (
        DescribingWorker("m", "1") as one,
        serving(configuration(m=route({"1": one.url})), tmp_path, clock) as catalogue,
    ):
        await eventually("version 1 is ready", lambda: catalogue.ready)
        wanted = configuration(m=route({"1": one.url, "2": NOWHERE}))
        catalogue.apply(replace(wanted, experiments={"m": (experiment,)}))
        assert catalogue.models["m"].experiments == ()
        clock.now_s += SETTLE_S + 1
        catalogue.settle()
        assert catalogue.models["m"].experiments == (experiment,)
        assert list(catalogue.models["m"].versions) == ["1", "2"]


def drawing(state: str, version: str) -> Experiment:
    variants = [{"name": "a", "version": "1", "bp": 5000}, {"name": "b", "version": version, "bp": 5000}]
    return parse_experiment({"experiment": "e", "model": "m", "unit": "user", "state": state, "variants": variants})


@in_loop
async def test_a_rollback_and_a_kill_wait_for_no_version_that_is_on_its_way(tmp_path):
    async with (
        DescribingWorker("m", "1") as one,
        DescribingWorker("m", "2", silent=True) as two,
        serving(configuration(m=route({"1": one.url})), tmp_path) as catalogue,
    ):
        await eventually("version 1 is ready", lambda: catalogue.ready)
        running = drawing("running", "1")
        catalogue.apply(replace(configuration(m=route({"1": one.url})), experiments={"m": (running,)}))
        assert catalogue.models["m"].experiments == (running,)
        other = configuration(m=route({"1": one.url, "2": two.url}, "2"))
        catalogue.apply(replace(other, experiments={"m": (drawing("running", "2"),)}))
        assert catalogue.models["m"].experiments == (running,), "what draws a version on its way waits for it"
        concluded = drawing("concluded", "1")
        catalogue.apply(replace(other, experiments={"m": (concluded,)}))
        assert catalogue.models["m"].experiments == (concluded,)
        catalogue.apply(replace(other, experiments={}))
        assert (catalogue.models["m"].experiments, catalogue.models["m"].route.default_version) == ((), "1")
        two.silent = False
        await eventually("version 2 serves", lambda: catalogue.models["m"].route.default_version == "2")


@in_loop
async def test_a_model_that_is_added_is_there_when_it_is_ready_and_one_that_is_removed_is_gone_at_once(tmp_path):
    async with DescribingWorker("m", "1") as one, DescribingWorker("n", "1", silent=True) as other:
        first = configuration(m=route({"1": one.url}))
        async with serving(first, tmp_path) as catalogue:
            await eventually("m is ready", lambda: catalogue.ready)
            members: list[list[str]] = []
            catalogue.on_change = lambda: members.append(list(catalogue.models))
            catalogue.apply(configuration(m=route({"1": one.url}), n=route({"1": other.url})))
            assert catalogue.ready, "a model on its way does not make the gateway unready"
            other.silent = False
            await eventually("n is there", lambda: is_ready(catalogue, "n", "1"))
            catalogue.apply(configuration(n=route({"1": other.url})))
            assert members == [["m", "n"], ["n"]]
            await eventually("m's worker is let go", lambda: one.connections == 0)


@in_loop
async def test_a_silent_workers_last_signature_stands_in_and_is_replaced_by_what_it_says_later(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.configuration.version_keeper.START_PATIENCE_S", 0.0)
    monkeypatch.setattr("gateway.configuration.worker_description.ANSWER_TIMEOUT_S", 0.05)
    async with DescribingWorker("m", "1", silent=True) as worker:
        first = configuration(m=route({"1": worker.url}))
        known = signature_of(worker.manifest)
        file = tmp_path / signature_file("m", "1")
        file.parent.mkdir(parents=True)
        file.write_bytes(encode_signature(known, first.routes["m"].versions["1"]))
        async with serving(first, tmp_path) as catalogue:
            await eventually("it is planned", lambda: catalogue.models["m"].versions["1"].planned)
            assert (catalogue.models["m"].versions["1"].planned.signature, catalogue.signatures_from_disk) == (known, 1)
            worker.serves_otherwise(batch_rows_max=7)
            worker.silent = False
            await eventually("the worker is heard", lambda: catalogue.signatures_from_disk == 0)
            await eventually(
                "its own signature is in force",
                lambda: catalogue.models["m"].versions["1"].planned.signature.batch_rows_max == 7,
            )
            assert b'"batch_rows_max": 7' in file.read_bytes()


def test_a_corrupt_signature_is_ignored_with_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("gateway.configuration.version_keeper.START_PATIENCE_S", 0.0)
    file = tmp_path / signature_file("m", "1")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"{]")

    @in_loop
    async def scenario() -> None:
        async with serving(configuration(m=route({"1": NOWHERE})), tmp_path):
            await eventually("it is ignored", lambda: "a state file is ignored" in caplog.text)

    with caplog.at_level(logging.WARNING):
        scenario()


@in_loop
async def test_a_version_waits_for_its_views_and_is_planned_as_soon_as_they_are_there(tmp_path):
    views = decode_views(GOLDEN_VIEWS.read_bytes())
    name, view = next(iter(views.items()))
    feature = next(c.name for c in view.current.columns if c.length is None and c.dtype.value == "float32")
    registered: dict = {}
    async with DescribingWorker("m", "1", features=(f"{name}:{feature}",)) as worker:
        catalogue = Catalogue(around(tmp_path, monotonic))

        async def read() -> dict:
            return dict(registered)

        catalogue._around.views._read = read
        catalogue.start(configuration(m=route({"1": worker.url})))
        served = catalogue.models["m"].versions["1"]
        await eventually("it says what is missing", lambda: "not registered" in served.problem)
        registered.update(views)
        await eventually("it is planned", lambda: served.planned)
        assert catalogue.models["m"].entities == {view.entity}
        await eventually("they are kept", (tmp_path / FILE).exists)
        await catalogue.close()
