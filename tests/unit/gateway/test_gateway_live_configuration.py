import logging
from pathlib import Path

import pytest

from gateway.configuration.catalogue import Catalogue
from gateway.configuration.configuration import Configuration, ConfigurationFiles
from gateway.configuration.last_good import StateDirectory
from gateway.configuration.live_configuration import LiveConfiguration
from gateway.configuration.version_changes import VersionChanges
from gateway.errors import ChangeNotKept, InvalidRequest, UnknownModel, UnknownVersion, VersionInUse, VersionNotReady
from gateway.routes_file import VersionRoute
from settings import ConfigurationError
from tests.unit.gateway.gateway_fakes import HandClock, in_loop

MODELS = """\
models:
  churn:
    default_version: "1"
    versions:
      "1": {workers: ["http://a:1"]}
      "2": {workers: ["http://b:1"]}
    fallback: {version: "2"}
"""

EXPERIMENT = """\
experiment: first
model: churn
unit: user
state: running
variants:
  - {name: a, version: "1", bp: 5000}
  - {name: b, version: "3", bp: 5000}
"""

THIRD = VersionRoute(workers=("http://c:1",))


class AppliedTo:
    """A catalogue that only remembers what it was given; of `ready`, it says that they can answer."""

    def __init__(self) -> None:
        self.applied: list[Configuration] = []
        self.ready: set[str] = set()

    def start(self, configuration: Configuration) -> None:
        self.applied.append(configuration)

    apply = start

    def settle(self) -> None:
        pass

    def keeper(self, model: str, version: str):
        return Kept(version in self.ready)


class Kept:
    """A version as changes see it."""

    def __init__(self, ready: bool) -> None:
        self.ready, self.served = ready, self
        self.reason = None if ready else "none of its workers can be reached"


class Place:
    """Files, a state directory and what follows them."""

    def __init__(self, directory: Path, models: str = MODELS, experiments: str = "") -> None:
        self.models, self.experiments = directory / "models.yaml", directory / "experiments"
        self.experiments.mkdir(exist_ok=True)
        self.models.write_text(models)
        if experiments:
            (self.experiments / "first.yaml").write_text(experiments)
        self.clock = HandClock()
        self.open(directory)

    def open(self, directory: Path) -> None:
        """Start as another process would, over the same files."""
        self.state = StateDirectory(directory / "state", lambda: 0)
        files = ConfigurationFiles(self.models, self.experiments, self.state)
        self.catalogue = AppliedTo()
        as_catalogue: Catalogue = self.catalogue
        self.live = LiveConfiguration(files.read(), files, self.state, as_catalogue, self.clock)
        self.changes = VersionChanges(self.live, as_catalogue)
        self.live._forget_outdated(self.live.current)
        self.catalogue.start(self.live.current)

    async def look(self, times: int = 2) -> None:
        """Look as often as it takes for a change to be seen and to have settled."""
        for _ in range(times):
            self.clock.now_s += 1
            await self.live.look()

    @property
    def served(self) -> list[str]:
        return list(self.catalogue.applied[-1].routes["churn"].versions)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Place:
    monkeypatch.setattr("gateway.configuration.version_changes.READY_WAIT_S", 0.0)
    return Place(tmp_path)


# Files ---------------------------------------------------------------------------------------------------------------


@in_loop
async def test_files_that_stay_as_they_are_change_nothing_and_are_as_old_as_the_last_look(place):
    await place.look(5)
    assert (len(place.catalogue.applied), place.live.changes, place.live.age_s) == (1, 0, 0.0)


@in_loop
async def test_a_changed_file_is_put_in_force_once_it_has_stayed_the_same_from_one_look_to_the_next(place):
    await place.look()
    place.models.write_text(MODELS.replace("http://b:1", "http://new:1"))
    await place.look(1)
    assert len(place.catalogue.applied) == 1, "it may still be in writing"
    place.models.write_text(MODELS.replace("http://b:1", "http://newer:1"))
    await place.look(1)
    assert len(place.catalogue.applied) == 1
    await place.look(1)
    assert place.catalogue.applied[-1].routes["churn"].versions["2"].workers == ("http://newer:1",)
    assert place.live.changes == 1


@in_loop
async def test_what_was_written_while_the_first_reading_went_on_is_not_missed(tmp_path):
    place = Place(tmp_path)
    place.models.write_text(MODELS.replace("http://b:1", "http://new:1"))
    await place.look()
    assert place.live.changes == 1


@in_loop
async def test_another_comment_is_no_other_configuration(place):
    revision = place.live.revision
    place.models.write_text("# later\n" + MODELS)
    await place.look()
    assert (place.live.revision, place.live.changes, len(place.catalogue.applied)) == (revision, 0, 1)


def test_a_wrong_file_is_refused_with_its_line_logged_once_and_the_last_good_one_stays(place, caplog):
    @in_loop
    async def scenario() -> None:
        await place.look()
        place.models.write_text(MODELS.replace('default_version: "1"', 'default_version: "9"'))
        await place.look(4)
        assert f"{place.models}:3: " in place.live.problem
        assert (len(place.catalogue.applied), place.live.changes) == (1, 0)
        assert place.live.age_s == 4.0, "the files do not say what is in force any more"
        place.models.write_text(MODELS)
        await place.look()
        assert (place.live.problem, place.live.age_s) == (None, 0.0)

    with caplog.at_level(logging.ERROR):
        scenario()
    assert len(caplog.records) == 1


@in_loop
async def test_a_file_that_is_gone_is_a_wrong_one(place):
    await place.look()
    place.models.unlink()
    await place.look()
    assert "cannot be read" in place.live.problem
    assert len(place.catalogue.applied) == 1


@in_loop
async def test_an_experiment_that_is_added_to_the_directory_is_read(place):
    await place.look()
    (place.experiments / "new.yaml").write_text(EXPERIMENT.replace('"3"', '"2"'))
    await place.look()
    assert [e.name for e in place.catalogue.applied[-1].experiments["churn"]] == ["first"]


def test_at_the_start_a_wrong_file_is_an_error(tmp_path):
    with pytest.raises(ConfigurationError, match="'3' is not routed"):
        Place(tmp_path, experiments=EXPERIMENT)


def test_equal_configurations_have_equal_revisions_and_others_have_others(tmp_path):
    revisions = []
    for number, content in enumerate([MODELS, MODELS + "\n", MODELS.replace("b:1", "c:1")]):
        (tmp_path / str(number)).mkdir()
        revisions.append(Place(tmp_path / str(number), content).live.revision)
    assert revisions[0] == revisions[1] != revisions[2]
    assert all(int(revision, 16) < 1 << 53 for revision in revisions), "exact as a metric's number"


# Changes -------------------------------------------------------------------------------------------------------------


@in_loop
async def test_a_version_that_is_put_is_served_and_outlives_a_restart(place, tmp_path):
    state, added = await place.changes.put("churn", "3", THIRD, dry_run=False)
    assert (added, state.ready, state.problem) == (True, False, "none of its workers can be reached")
    assert place.served == ["1", "2", "3"]
    assert (await place.changes.put("churn", "3", THIRD, dry_run=False))[1] is False
    place.open(tmp_path)
    assert place.served == ["1", "2", "3"]


@in_loop
async def test_a_change_of_another_process_is_found_in_the_shared_directory(place, tmp_path):
    await place.look()
    other = Place(tmp_path)
    await other.changes.put("churn", "3", THIRD, dry_run=False)
    await place.look()
    assert place.served == ["1", "2", "3"]
    assert place.live.revision == other.live.revision


def test_where_the_file_says_something_else_of_the_model_the_file_wins_and_it_is_logged(place, tmp_path, caplog):
    @in_loop
    async def scenario() -> None:
        await place.changes.put("churn", "3", THIRD, dry_run=False)
        await place.look()
        place.models.write_text(MODELS.replace("b:1", "c:1"))
        await place.look()
        assert place.served == ["1", "2"]

    scenario()
    assert "run-time changes are dropped" in caplog.text
    assert not list((tmp_path / "state" / "routes").iterdir())


@in_loop
async def test_a_wrong_file_drops_no_run_time_change(place, tmp_path):
    await place.changes.put("churn", "3", THIRD, dry_run=False)
    (place.experiments / "first.yaml").write_text(EXPERIMENT)
    await place.look()
    assert place.live.problem is None
    place.models.write_text(MODELS.replace("b:1", "c:1"))
    await place.look()
    assert "'3' is not routed" in place.live.problem, "the experiment needs what the file does not have"
    assert place.served == ["1", "2", "3"]
    assert list((tmp_path / "state" / "routes").iterdir())


@in_loop
async def test_what_is_removed_and_put_back_as_the_file_has_it_leaves_nothing_on_disk(place, tmp_path):
    place.models.write_text(MODELS.replace('    fallback: {version: "2"}\n', ""))
    await place.look()
    await place.changes.delete("churn", "2", dry_run=False)
    assert place.served == ["1"]
    assert len(list((tmp_path / "state" / "routes").iterdir())) == 1
    await place.changes.put("churn", "2", VersionRoute(workers=("http://b:1",)), dry_run=False)
    assert place.served == ["1", "2"]
    assert not list((tmp_path / "state" / "routes").iterdir())


@in_loop
async def test_each_use_of_a_version_stands_in_the_way_of_its_removal_and_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.configuration.version_changes.READY_WAIT_S", 0.0)
    place = Place(tmp_path, experiments=EXPERIMENT.replace('"3"', '"2"'))
    with pytest.raises(VersionInUse, match="the default version and drawn by the experiment 'first'"):
        await place.changes.delete("churn", "1", dry_run=False)
    with pytest.raises(VersionInUse, match="the fallback version and drawn by the experiment 'first'"):
        await place.changes.delete("churn", "2", dry_run=False)
    assert place.served == ["1", "2"]


@in_loop
async def test_a_default_is_one_that_can_answer(place):
    with pytest.raises(VersionNotReady, match="none of its workers"):
        await place.changes.set_default("churn", "2", dry_run=False)
    place.catalogue.ready.add("2")
    assert (await place.changes.set_default("churn", "2", dry_run=False)).ready
    assert place.catalogue.applied[-1].routes["churn"].default_version == "2"


@in_loop
async def test_what_is_not_there_is_told_with_what_is(place):
    with pytest.raises(UnknownModel, match="churn"):
        await place.changes.put("nothing", "1", THIRD, dry_run=False)
    for change in (place.changes.delete, place.changes.set_default):
        with pytest.raises(UnknownVersion, match="1, 2"):
            await change("churn", "9", dry_run=False)


@pytest.mark.parametrize("version", ["", ".hidden", "../x", "1\n", "v" * 129])
def test_a_version_has_a_name_that_is_safe_in_a_path(place, version):
    @in_loop
    async def scenario() -> None:
        with pytest.raises(InvalidRequest):
            await place.changes.put("churn", version, THIRD, dry_run=False)

    scenario()


@in_loop
async def test_a_dry_run_checks_everything_and_changes_nothing(place, tmp_path):
    assert (await place.changes.put("churn", "3", THIRD, dry_run=True))[1]
    with pytest.raises(InvalidRequest, match="http://host:port"):
        await place.changes.put("churn", "3", VersionRoute(workers=("c:1",)), dry_run=True)
    assert (len(place.catalogue.applied), (tmp_path / "state").exists()) == (1, False)


@in_loop
async def test_what_cannot_be_kept_is_not_done(place, tmp_path):
    (tmp_path / "state").write_bytes(b"in the way")
    with pytest.raises(ChangeNotKept, match="state"):
        await place.changes.put("churn", "3", THIRD, dry_run=False)
    assert place.served == ["1", "2"]


def test_an_overlay_that_is_corrupt_or_makes_no_route_is_ignored_with_a_warning(place, tmp_path, caplog):
    overlay = tmp_path / "state" / "routes" / "churn.json"
    overlay.parent.mkdir(parents=True)
    sha256 = place.live.current.overlay_of("churn").route_sha256
    for content in ('{"format": 2}', "[", f'{{"format": 1, "route_sha256": "{sha256}", "removed": ["1"]}}'):
        overlay.write_text(content)
        caplog.clear()
        place.open(tmp_path)
        assert place.served == ["1", "2"]
        assert "a state file is ignored" in caplog.text
