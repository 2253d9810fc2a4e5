import json
import re
import struct
from pathlib import Path

import msgspec
import numpy as np
import pytest

from contracts.inference import decode_request
from loadtests import worker_contestants
from loadtests.bench_data import features
from loadtests.bench_result import write_result
from loadtests.cell import Cell, CellResult
from loadtests.goals import check_goals
from loadtests.http_connection import Response
from loadtests.infer_load import InferCheck, infer_request
from loadtests.machine import Machine
from loadtests.report import with_report
from loadtests.summary import summarise
from loadtests.worker_bench import best, command_line, main
from loadtests.worker_contestants import CANDIDATES, MLSERVER, PeersMissing, mlserver_program
from loadtests.worker_report import (
    BEGIN,
    END,
    GOALS,
    Tried,
    WorkerBenchResult,
    markdown_report,
    tried_rows,
    worker_rows,
)

PAGE = Path(__file__).parents[3] / "docs" / "performance.md"


def sent(row: np.ndarray, *, binary: bool):
    head, _, body = infer_request("/v2/models/bench/infer", row, bytes(40), binary=binary).partition(b"\r\n\r\n")
    length = re.search(rb"inference-header-content-length: (\d+)", head)
    assert re.search(rb"\r\ncontent-length: (\d+)", head)[1] == b"%d" % len(body)
    return decode_request(body, int(length[1]) if length else None)


def test_a_row_goes_out_as_the_very_floats_that_it_is_in_either_form():
    row = features(1)[0]
    for binary in (False, True):
        request = sent(row, binary=binary)
        assert request.binary_output is binary
        np.testing.assert_array_equal(request.inputs[0].array(), [row])


def answer(value: float, status: int = 200) -> Response:
    return Response(status, json.dumps({"outputs": [{"name": "predict", "data": [value]}]}).encode())


@pytest.mark.parametrize(
    "response",
    [
        answer(0.51),
        answer(0.5, 503),
        Response(200, b"{}"),
        Response(200, b'{"outputs": []}'),
        Response(200, b'{"outputs": [{"data": [0.5, 0.5]}]}'),
        Response(200, b'{"outputs": [{"data": [null]}]}'),
    ],
)
def test_an_answer_that_is_not_the_offline_value_is_a_problem(response):
    check = InferCheck([0.5], binary=False)
    assert check.problem(0, answer(0.5)) is None
    assert check.problem(0, response) is not None


@pytest.mark.parametrize("tail", [struct.pack("<f", 0.51), struct.pack("<f", float("nan")), b"\0"])
def test_a_raw_answer_that_is_not_the_offline_value_is_a_problem(tail):
    check = InferCheck([0.5], binary=True)
    assert check.problem(0, Response(200, b"{}" + struct.pack("<f", 0.5))) is None
    assert check.problem(0, Response(200, tail)) is not None


def cell(stack: str, load: str, rate_per_s: float, p50_ms: float) -> Cell:
    result = CellResult(
        answers=1,
        seconds=1.0,
        rate_per_s=rate_per_s,
        p50_ms=p50_ms,
        p99_ms=2 * p50_ms,
        p999_ms=3 * p50_ms,
        max_ms=4 * p50_ms,
        answers_total=1,
        unanswered=0,
        errors={},
        units_by_version={},
        generator_cpu_s=0.1,
        generator_cpu_share=0.1,
        generator_lag_p99_ms=0.0,
    )
    return Cell(
        stack=stack,
        load=load,
        round=1,
        result=result,
        cpu_s_per_1000={"server": 0.25},
        foreign_cores=0.0,
        memory_mb={"server": 100.0},
    )


CELLS = [
    cell(MLSERVER, "closed-1", 1_000, 1.0),
    cell("sekisho-worker", "closed-1", 2_000, 0.5),
    cell(MLSERVER, "closed-64", 1_000, 60.0),
    cell("sekisho-worker", "closed-64", 4_000, 15.0),
]


def test_the_table_compares_with_mlserver_under_the_same_load():
    heads, rows = worker_rows(summarise(CELLS, MLSERVER))
    found = dict(zip(heads, rows[-1], strict=True))
    assert (found["server"], found["conns"], found["req/s"], found["CPU µs"]) == (
        "sekisho-worker",
        "64",
        "4,000",
        "250",
    )
    assert rows[-1][4] == "4.00"
    assert rows[-1][6] == "0.250"


def test_the_goals_are_five_times_the_requests_and_no_higher_p50():
    throughput, p50 = check_goals(CELLS, GOALS)
    assert (throughput.measured, throughput.reached) == (4.0, False)
    assert (p50.measured, p50.reached) == (0.5, True)


def test_a_result_is_written_whole_and_shown_with_what_was_tried_for_mlserver(tmp_path):
    result = WorkerBenchResult(
        command="python -m loadtests.worker_bench",
        commit="abc1234",
        started_at="2026-01-02T03:04:05+00:00",
        machine=Machine(cpu="A CPU", cores=2, memory_gb=8.0, kernel="6.1", python="3.11.7", packages={}),
        rounds=1,
        seconds=1.0,
        summaries=summarise(CELLS, MLSERVER),
        goals=check_goals(CELLS, GOALS),
        cells=CELLS,
        tried=[Tried(settings="plain", load="closed-64", rate_per_s=1_000.0, p50_ms=1.0)],
        chosen={"closed-64": "plain"},
        peer_packages={"mlserver": "1.7.1"},
    )
    write_result(result, tmp_path / "run.json")
    assert msgspec.json.decode((tmp_path / "run.json").read_bytes(), type=WorkerBenchResult) == result
    report = markdown_report(result)
    assert "| sekisho-worker | 64 | 4,000 | 4,000-4,000 | 4.00 |" in report
    assert "mlserver 1.7.1" in report
    assert "| plain | 1,000 * |" in report
    assert "| requests/s at 64 connections, x MLServer | not reached | at least 5 | 4.00 |" in report


def test_each_load_is_measured_with_the_settings_that_were_best_under_it():
    tried = [
        Tried(settings="plain", load="closed-1", rate_per_s=2.0, p50_ms=1.0),
        Tried(settings="batches", load="closed-1", rate_per_s=1.0, p50_ms=1.0),
        Tried(settings="plain", load="closed-64", rate_per_s=2.0, p50_ms=1.0),
        Tried(settings="batches", load="closed-64", rate_per_s=3.0, p50_ms=1.0),
    ]
    chosen = {load: best(tried, load) for load in ("closed-1", "closed-64")}
    assert chosen == {"closed-1": "plain", "closed-64": "batches"}
    assert tried_rows(tried, chosen)[1] == [("plain", "2 *", "2"), ("batches", "1", "3 *")]


def test_mlserver_is_tried_with_and_without_processes_and_batches():
    assert {(each.parallel_workers, each.max_batch_size > 0) for each in CANDIDATES} == {
        (0, False),
        (0, True),
        (1, False),
        (1, True),
    }


def test_without_mlserver_the_run_says_what_to_do_and_ends_with_1(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(worker_contestants, "PEERS", tmp_path / ".venv-peers")
    with pytest.raises(PeersMissing):
        mlserver_program()
    assert main(["--quick"]) == 1
    assert "run `make peers` first" in capsys.readouterr().err


def test_the_published_page_has_a_place_for_the_report_and_every_option():
    page = PAGE.read_text()
    assert with_report(page, "x", BEGIN, END).count(f"x\n\n{END}") == 1
    section = page.partition("## A worker beside MLServer")[2].partition("\n## ")[0]
    for option in (each for each in command_line()._actions if each.dest != "help"):
        assert f"`{option.option_strings[0]}" in section
        assert f"`SEKISHO_{option.dest.upper()}`" in section


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--seconds", "0"], ["--unknown"]])
def test_wrong_usage_is_exit_code_2_and_a_sentence(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line().parse_args(arguments)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err
