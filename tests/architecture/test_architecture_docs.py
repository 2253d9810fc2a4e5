import argparse
import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import duckdb
import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from contracts.prediction_record import FIXED_FIELDS
from experiments import parse_experiment
from experiments.definition import KEYS
from feature_store import NearCache, OnlineReader, open_connection, open_redis
from gateway import errors
from gateway.admission import Admission
from gateway.arm_counts import ArmCounter
from gateway.configuration.catalogue import Catalogue
from gateway.configuration.configuration import ConfigurationFiles
from gateway.configuration.configuration_report import ConfigurationReport
from gateway.configuration.live_configuration import LiveConfiguration
from gateway.dispatch_metrics import DispatchCollector
from gateway.edge.problem import STATUS_BY_ERROR
from gateway.experimentation.served_experiments import ServedExperiments
from gateway.experimentation.stored_experiments import stored_experiments
from gateway.feature_ladder import FeatureLadder
from gateway.feature_metrics import FeatureCollector
from gateway.feature_rows import FeatureAssembler
from gateway.metrics import GatewayMetrics, StateCollector
from gateway.prediction_log.log_writer import LogWriter
from gateway.prediction_log.outcome_table import OutcomeTable
from gateway.prediction_log.parquet_spool import FileNames
from model_workers.metrics import WorkerMetrics
from tests.unit.gateway.describing_worker import around, configuration

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SCRIPTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
FROM_HELP = re.compile(r" \[(?P<variable>SEKISHO_\w+)(?:; (?:default (?P<default>.*)|required))?\]\Z", re.DOTALL)


def rows(page: str, heading: str | None = None) -> list[list[str]]:
    """Give the cells of every table row of a page, or of one of its sections."""
    text = (DOCS / page).read_text(encoding="utf-8")
    if heading is not None:
        assert f"\n## {heading}\n" in text, f"{page} has no section {heading!r}"
        text = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]


def named(page: str, heading: str | None = None) -> dict[str, list[str]]:
    """Give the rows of a page by the word in code type that begins them."""
    found = {}
    for cells in rows(page, heading):
        for name in re.findall(r"`([^`]+)`", cells[0]):
            found[name] = cells
    return found


def options(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, str | None]]:
    """Give flag, variable and default of every option that a variable can set, those of commands included."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from options(command)
        elif described := FROM_HELP.search((action.help or "").replace("%%", "%")):
            yield action.option_strings[0], described["variable"], described["default"]


def test_the_settings_page_has_a_section_for_every_console_script_and_no_other():
    text = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## `(.+)`$", text, re.MULTILINE)) == set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_setting_is_documented_with_variable_and_default_and_nothing_else_is(
    script: str, monkeypatch: pytest.MonkeyPatch
):
    for name in [name for name in os.environ if name.startswith("SEKISHO_")]:
        monkeypatch.delenv(name)
    documented = named("settings.md", f"`{script}`")
    documented.pop("flag", None)
    settings = set(options(import_module(SCRIPTS[script].partition(":")[0]).command_line()))
    assert {flag for flag, _, _ in settings} == documented.keys()
    for flag, variable, default in settings:
        assert documented[flag][1] == f"`{variable}`"
        if default is not None:
            assert documented[flag][2] == f"`{default}`"


def test_every_error_code_is_documented_with_its_status_and_nothing_else_is():
    documented = {name: cells[1] for name, cells in named("errors.md").items()}
    codes = {error.code: str(status) for error, status in STATUS_BY_ERROR.items()}
    assert documented == codes | {"internal_error": "500"}


def test_every_error_has_a_status_and_a_code_of_its_own():
    known = [
        error
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.GatewayError) and error is not errors.GatewayError
    ]
    assert set(known) == set(STATUS_BY_ERROR)
    assert len({error.code for error in known}) == len(known)


def configuration_collectors(directory: Path) -> tuple[ConfigurationReport, ServedExperiments]:
    shared = around(directory, lambda: 0.0)
    catalogue = Catalogue(shared)
    files = ConfigurationFiles(directory / "models.yaml", None, shared.state)
    live = LiveConfiguration(configuration(), files, shared.state, catalogue, lambda: 0.0)
    redis, counter = open_redis("redis://localhost"), ArmCounter(lambda: 0.0)
    stored = stored_experiments(redis, shared.state, "one", live, counter, lambda: 0.0, lambda: 0)
    return ConfigurationReport(live, catalogue, shared.views, shared.state), ServedExperiments(live, stored)


def gateway_families(directory: Path) -> list[Metric]:
    registry = CollectorRegistry()
    GatewayMetrics(registry)
    log = LogWriter(directory, FileNames("host", "boot"), 60, lambda: 0)
    registry.register(StateCollector({}, Admission(1), log))
    registry.register(DispatchCollector({}, lambda: 0.0))
    for collector in configuration_collectors(directory):
        registry.register(collector)
    near_cache = NearCache()
    reader = OnlineReader(open_connection("redis://localhost"), near_cache=near_cache)
    ladder = FeatureLadder(reader, near_cache, lambda: 0.0)
    registry.register(FeatureCollector(FeatureAssembler(ladder, lambda: 0), ladder, reader, near_cache))
    return list(registry.collect())


def worker_families() -> list[Metric]:
    registry = CollectorRegistry()
    WorkerMetrics(registry)
    return list(registry.collect())


@pytest.mark.parametrize("program", ["Gateway", "Worker"])
def test_every_metric_is_documented_with_kind_and_labels_and_nothing_else_is(program: str, tmp_path: Path):
    families = gateway_families(tmp_path) if program == "Gateway" else worker_families()
    documented = {
        name: (cells[1], set(re.findall(r"`([^`]+)`", cells[2])))
        for name, cells in named("metrics.md", program).items()
    }
    registered = {
        family.name + ("_total" if family.type == "counter" else ""): (family.type, set(family._labelnames))
        for family in families
    }
    assert documented == registered


def test_every_column_of_the_logs_is_documented():
    documented = named("prediction-log.md")
    assert {field.name for field in FIXED_FIELDS} <= documented.keys()
    assert {field.name for field in OutcomeTable.schema} <= documented.keys()
    assert {
        "entity.{kind}",
        "status.{view}",
        "event_time.{view}",
        "f.{view}.{feature}",
        "y.{output}",
    } <= documented.keys()


def test_every_key_of_an_experiment_is_documented_and_nothing_else_is():
    assert named("experiments.md", "Keys").keys() == set(KEYS)


def test_the_example_experiment_of_the_docs_is_one():
    text = (DOCS / "experiments.md").read_text(encoding="utf-8")
    document = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])
    assert parse_experiment(document).variant_named("treatment").bp == 1_000


def queries(page: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"```sql\n(.*?)```", text, re.DOTALL) + re.findall(r'^duckdb -c "(.*)"$', text, re.MULTILINE)


def test_the_queries_of_the_docs_run_on_the_layout_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    golden = ROOT / "tests" / "golden"
    log = tmp_path / "sekisho-data/log"
    for record, place in (
        ("prediction_record_v1", "predictions/model=diagnosis/date=2026-10-31/hour=09"),
        ("outcome_record_v1", "outcomes/date=2026-10-31/hour=09"),
    ):
        (log / place).mkdir(parents=True)
        shutil.copy(golden / f"{record}.parquet", log / place / "host-boot-000001.parquet")
    monkeypatch.chdir(tmp_path)
    with duckdb.connect() as connection:
        results = [sorted(connection.execute(query).fetchall()) for query in queries("prediction-log.md")]
        connection.execute("CREATE TABLE units AS SELECT 'p7' AS unit")
        assigned = [connection.execute(query).fetchall() for query in queries("assignment.md")]
    assert results == [[("treatment", 2, 1, 1.0)], [("diagnosis", "1", 1), ("diagnosis", "2", 1)]]
    assert assigned == [[("p7", 1373, 9873)]]


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_every_link_to_a_file_of_the_repository_leads_to_one(page: Path):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", text)
    assert not [target for target in targets if not (page.parent / target).exists()]
