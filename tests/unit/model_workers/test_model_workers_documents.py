import re
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from contracts.manifest import Manifest, decode_manifest
from http_server.connection import HEAD_BYTES_MAX, HEADERS_MAX
from http_server.server import Limits
from model_workers.__main__ import command_line
from model_workers.batcher import QUEUE_ROWS_MAX
from model_workers.edge import BODY_BYTES_MAX, STATUS_AND_REASON_BY_ERROR
from model_workers.executions import INLINE_US_MAX
from model_workers.loading import load_version
from model_workers.metrics import WorkerMetrics
from model_workers.repository import select_versions
from model_workers.repository_control import STILL_LOADING_S
from model_workers.server import FINISH_S_MAX
from model_workers.version_files import ARTIFACT_BYTES_MAX
from tests.unit.model_workers.fake_parts import HandClock

DOCUMENTS = Path(__file__).resolve().parents[3] / "docs"
PROTOCOL = (DOCUMENTS / "open-inference-protocol.md").read_text()
REPOSITORY = (DOCUMENTS / "model-repository.md").read_text()


def test_every_flag_stands_in_the_documents_with_its_variable_and_default():
    flags = [action for action in command_line()._actions if action.dest != "help"]
    assert len(flags) > 8
    for action in flags:
        (line,) = [line for line in PROTOCOL.splitlines() if line.startswith(f"| `{action.option_strings[0]}` |")]
        assert f"`SEKISHO_{action.dest.upper()}`" in line
        assert action.default is None or f"`{action.default}`" in line


def test_every_metric_stands_in_the_documents():
    registry = CollectorRegistry()
    WorkerMetrics(registry)
    names = re.findall(r"# TYPE (\w+)", generate_latest(registry).decode())
    assert len(names) == 9
    assert [name for name in names if f"`{name}`" not in PROTOCOL] == []


def test_every_error_stands_in_the_documents_with_its_status():
    for status, reason in (*STATUS_AND_REASON_BY_ERROR.values(), (500, "internal")):
        assert f"| {int(status)} | `{reason}` |" in PROTOCOL


@pytest.mark.parametrize(
    "limit",
    [
        f"`{QUEUE_ROWS_MAX}`",
        f"`{BODY_BYTES_MAX}`",
        f"{INLINE_US_MAX} µs",
        f"{HEAD_BYTES_MAX // 1024} KiB",
        f"{Limits().connections_max:,} connections",
        f"{FINISH_S_MAX} s",
        f"{Limits().keep_alive_s:g} s",
        f"{Limits().head_s:g} s",
        f"{Limits().body_s:g} s",
        f"{HEADERS_MAX} headers",
    ],
)
def test_a_limit_stands_in_the_documents_as_it_is(limit):
    assert limit in PROTOCOL


def test_the_limits_of_a_load_stand_in_the_documents_as_they_are():
    assert f"an artifact may have {ARTIFACT_BYTES_MAX >> 30} GiB" in REPOSITORY
    assert f"A load that has taken\n{STILL_LOADING_S:g} s is told" in REPOSITORY


def test_the_example_of_a_manifest_is_one_and_shows_every_field():
    example = re.search(r"```json\n(.*?)```", REPOSITORY, re.DOTALL)[1]
    decode_manifest(example.encode())
    assert set(Manifest.__struct_fields__) - {"format"} == set(re.findall(r'^  "(\w+)":', example, re.MULTILINE))


EXAMPLES = re.findall(r"```python\n(.*?)```", REPOSITORY, re.DOTALL)


def test_the_examples_of_publishing_compile():
    assert len(EXAMPLES) == 2
    for program in EXAMPLES:
        compile(program, "example", "exec")


@pytest.mark.parametrize("program", EXAMPLES)
def test_what_an_example_publishes_as_it_is_written_can_be_loaded(tmp_path, monkeypatch, program):
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "example", "exec"), {})
    (directory,) = select_versions(tmp_path / "models", [])
    loaded = load_version(directory, HandClock())
    rows = np.ones((2, 3), np.float32)
    scores = loaded.model.execute({loaded.published.manifest.inputs[0].name: rows}, ["malignant"])["malignant"]
    assert scores.shape == (2,)
    loaded.model.close()
