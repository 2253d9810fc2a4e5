import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests import sampling_profiler
from loadtests.cell import Cell, CellResult
from loadtests.ledger import command_line, main
from loadtests.ledger_report import BEGIN, END, LedgerRun, markdown_report, process_rows, summary_rows
from loadtests.ledger_run import (
    HOT_PROGRAM,
    MAIN_THREAD,
    HotCostMissing,
    MeasuredLoad,
    WrongAnswers,
    check_answers,
    hot_stages,
)
from loadtests.loads import ONE
from loadtests.machine import Machine
from loadtests.report import with_report
from loadtests.sampling_profiler import (
    ProfilerFailed,
    ProfilerNotFound,
    cpu_between,
    find_profiler,
    profile_process,
    thread_cpu,
)
from loadtests.stage_ledger import (
    ASSIGN,
    DECODE,
    GATEWAY_PLACES,
    KERNEL,
    LOG,
    LOG_THREAD,
    LOOP,
    OTHER,
    READ,
    RUN,
    WORKER_PLACES,
    WRITE,
    Entry,
    FrameStack,
    ProfileLineWrong,
    Tally,
    ThreadCpu,
    apportion,
    ledger,
    parse_raw,
    place_of,
    tallies,
    user_weights,
)

PROJECT = Path(__file__).parents[3]
RUNNER = "run (uvloop/__init__.py:92);Runner.run (asyncio/runners.py:118)"
RAW = f"""\
thread (10): MainThread;{RUNNER} 4
thread (10): MainThread;{RUNNER};PredictRoute.answer (gateway/edge/predict_route.py:65);DataThing.x (msgspec/x.py:1) 3
thread (10): MainThread;{RUNNER};Connection._respond (http_server/connection.py:297) 2
thread (10): MainThread;{RUNNER};Connection.data_received (http_server/connection.py:160) 1
thread (11): prediction-log;LogWriter._run (gateway/prediction_log/log_writer.py:172);wait (threading.py:320) 5
"""


def stages(raw: str, places=GATEWAY_PLACES) -> dict[int, dict[str, int]]:
    return {thread_id: dict(tally.stages) for thread_id, tally in tallies(parse_raw(raw.splitlines()), places).items()}


def test_raw_profiler_lines_become_samples_by_thread_and_stage():
    assert stages(RAW) == {10: {LOOP: 4, DECODE: 3, WRITE: 2, READ: 1}, 11: {LOG_THREAD: 5}}
    assert [stack.thread for stack in parse_raw(RAW.splitlines())] == [*["MainThread"] * 4, "prediction-log"]


def test_a_thread_without_a_name_and_without_frames_is_read_too():
    assert list(parse_raw(["thread (7) 3"])) == [FrameStack(7, "", (), 3)]


@pytest.mark.parametrize("line", ["", "main (x.py:1) 3", "thread (0x7F): a;b (c.py:1) 3", "thread (7): a;b (c.py:1)"])
def test_a_line_of_another_format_is_refused_with_the_line(line):
    with pytest.raises(ProfileLineWrong) as refused:
        list(parse_raw([line]))
    assert refused.value.line == line


def test_modules_that_the_table_does_not_know_are_other():
    assert stages("thread (1): MainThread;main (somewhere/else.py:1);run (third_party.py:2) 6") == {1: {OTHER: 6}}


def test_a_module_that_the_table_does_not_know_belongs_to_its_caller():
    frames = ["assign (experiments/assignment.py:5)", "blake2b_of (hashing.py:9)"]
    place = place_of(frames, GATEWAY_PLACES)
    assert place is not None
    assert place.stage == ASSIGN


def test_every_place_is_a_file_or_folder_of_this_project_or_a_library():
    libraries = ("uvloop/", "asyncio/", "onnxruntime/", "lightgbm/")
    for place in (*GATEWAY_PLACES, *WORKER_PLACES):
        if place.path in libraries or place.path == HOT_PROGRAM.name:
            continue
        found = PROJECT / place.path
        assert found.exists() or list(found.parent.glob(f"{found.name}*")), place


def test_every_function_of_the_table_is_written_in_its_file():
    for place in (*GATEWAY_PLACES, *WORKER_PLACES):
        file = HOT_PROGRAM if place.path == HOT_PROGRAM.name else PROJECT / place.path
        for function in filter(None, place.functions):
            name = function.rpartition(".")[2]
            text = file.read_text()
            assert f"def {name}" in text or f"class {name}" in text, place


@given(st.integers(0, 10**9), st.dictionaries(st.text(), st.integers(0, 10**6), min_size=1))
def test_parts_add_up_to_the_whole_and_none_is_a_whole_step_off(total, weights):
    if not any(weights.values()):
        weights["some"] = 1
    parts = apportion(total, weights)
    assert sum(parts.values()) == total
    for key, part in parts.items():
        assert abs(part - total * weights[key] / sum(weights.values())) < 1 + 1e-6


def test_nothing_is_divided_by_no_weights():
    with pytest.raises(ValueError, match="nothing to divide 5"):
        apportion(5, {"a": 0})


@given(
    st.dictionaries(
        st.integers(1, 20),
        st.tuples(st.integers(0, 5_000), st.integers(0, 5_000)),
        min_size=1,
        max_size=5,
    ),
    st.integers(1, 100_000),
)
def test_a_ledger_adds_up_exactly_to_the_cpu_time_of_its_process(ticks, answers):
    threads = {thread_id: ThreadCpu("t", *spent) for thread_id, spent in ticks.items()}
    entries = ledger(threads, {1: {LOOP: 7.3, READ: 3.1}}, answers, 100, OTHER)
    whole_ticks = sum(map(sum, ticks.values()))
    assert sum(entry.steps for entry in entries) == round(whole_ticks * 1_000_000 * 10 / (100 * answers))


def test_a_ledger_shows_user_time_by_stage_and_the_kernels_by_thread():
    # Its own time was worth 5 of its 10 samples: the others are taken from where the kernel is called, which is 6.
    threads = {10: ThreadCpu(MAIN_THREAD, 80, 20), 12: ThreadCpu("bio", 10, 0)}
    weights = user_weights(tallies(parse_raw(RAW.splitlines()), GATEWAY_PLACES)[10], 5)
    # 1.1 s for 10,000 requests: 110 µs each.
    assert ledger(threads, {10: weights}, 10_000, 100, OTHER) == [
        Entry(MAIN_THREAD, LOOP, 107),
        Entry(MAIN_THREAD, DECODE, 480),
        Entry(MAIN_THREAD, WRITE, 53),
        Entry(MAIN_THREAD, READ, 160),
        Entry(MAIN_THREAD, KERNEL, 200),
        Entry("bio", OTHER, 100),
    ]


def test_a_process_that_did_nothing_has_an_empty_ledger():
    assert ledger({}, {}, 10, 100, OTHER) == []


def test_the_kernels_samples_are_taken_from_where_the_kernel_is_called():
    tally = Tally(Counter({LOOP: 40, READ: 60}), Counter({LOOP: 40}))
    assert user_weights(tally, 120) == {LOOP: 40, READ: 60}
    assert user_weights(tally, 75) == {LOOP: 15, READ: 60}
    assert user_weights(tally, 10) == {LOOP: 0, READ: 60}
    assert user_weights(Tally(Counter({LOOP: 4}), Counter({LOOP: 4})), 0) == {OTHER: 1}


def test_a_function_that_the_loop_calls_is_not_counted_as_the_kernels():
    raw = f"thread (1): MainThread;{RUNNER} 2\nthread (1): MainThread;{RUNNER};_helper (third_party.py:3) 5"
    tally = tallies(parse_raw(raw.splitlines()), GATEWAY_PLACES)[1]
    assert (tally.stages[LOOP], tally.at_kernel[LOOP]) == (7, 2)


def test_a_workers_stages_are_its_own():
    raw = "thread (1): MainThread;execute (model_workers/model_version.py:9);Session.run (onnxruntime/capi/x.py:8) 2"
    assert stages(raw, WORKER_PLACES) == {1: {RUN: 2}}


def test_the_path_alone_costs_what_it_printed_without_its_start():
    raw = f"""\
thread (1);<module> (gateway_request.py:25);_find_and_load (<frozen importlib._bootstrap>:1176) 90
thread (1): MainThread;{RUNNER};gateway (gateway_request.py:170);__init__ (gateway/prediction_log/x.py:1) 50
thread (1): MainThread;{RUNNER};Predictor._answered (gateway/predict.py:120) 3
thread (1): MainThread;{RUNNER} 1
"""
    said = "  1 in a turn:   40.0 µs a request,   44.4 µs with a request id and trace context\n"
    stacks = list(parse_raw(raw.splitlines()))
    assert hot_stages(stacks, said) == {LOG: 333, LOOP: 111}
    with pytest.raises(HotCostMissing, match="Traceback"):
        hot_stages(stacks, "Traceback: it failed")


def test_a_missing_profiler_is_said_with_how_to_get_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sampling_profiler.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ProfilerNotFound):
        find_profiler()
    assert main([]) == 2
    assert "pip install py-spy" in capsys.readouterr().err


def test_a_profiler_beside_the_interpreter_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    monkeypatch.setattr(sampling_profiler.sys, "executable", str(tmp_path / "python"))
    (tmp_path / "py-spy").write_text("#!/bin/sh\n")
    (tmp_path / "py-spy").chmod(0o755)
    assert find_profiler() == str(tmp_path / "py-spy")


@pytest.mark.parametrize("script", ["echo 'Permission Denied'; exit 1", "echo 'Permission Denied'"])
def test_a_profiler_that_fails_or_writes_nothing_is_said_in_its_own_words(tmp_path, script):
    profiler = tmp_path / "py-spy"
    profiler.write_text(f"#!/bin/sh\n{script}\n")
    profiler.chmod(0o755)
    with pytest.raises(ProfilerFailed, match="py-spy on gateway failed: Permission Denied"):
        profile_process(str(profiler), "gateway", os.getpid(), 1, tmp_path / "out.raw").finish()


def test_the_cpu_time_of_this_process_is_read_by_thread():
    found = thread_cpu(os.getpid())
    assert found[os.getpid()].user_ticks > 0
    assert cpu_between(found, found) == {}


def test_cpu_time_between_is_a_difference_and_a_new_threads_whole():
    before = {1: ThreadCpu("a", 10, 5), 2: ThreadCpu("b", 3, 3)}
    after = {1: ThreadCpu("a", 14, 5), 2: ThreadCpu("b", 3, 3), 3: ThreadCpu("c", 0, 2)}
    assert cpu_between(before, after) == {1: ThreadCpu("a", 4, 0), 3: ThreadCpu("c", 0, 2)}


RESULT = CellResult(
    answers=1,
    seconds=1.0,
    rate_per_s=1_234.0,
    p50_ms=1.0,
    p99_ms=1.0,
    p999_ms=1.0,
    max_ms=1.0,
    answers_total=1,
    unanswered=0,
    errors={"wrong value": 3},
    units_by_version={},
    generator_cpu_s=0.1,
    generator_cpu_share=0.1,
    generator_lag_p99_ms=0.0,
)


def test_wrong_answers_are_no_cost_of_a_request():
    with pytest.raises(WrongAnswers, match=r"closed-1: wrong value \(3 times\)"):
        check_answers(ONE, RESULT)


def measured_run() -> LedgerRun:
    cell = Cell(
        stack="sekisho",
        load="closed-1",
        round=1,
        result=RESULT,
        cpu_s_per_1000={},
        foreign_cores=0.5,
        memory_mb={},
    )
    gateway = [Entry(MAIN_THREAD, KERNEL, 50), Entry(MAIN_THREAD, READ, 101), Entry("prediction-log", LOG_THREAD, 9)]
    load = MeasuredLoad(
        cell=cell,
        entries={"gateway": gateway, "redis": [Entry(MAIN_THREAD, "commands", 40)]},
        hot={READ: 30, OTHER: 4},
        samples={"gateway": 77},
    )
    return LedgerRun(
        command="python -m loadtests.ledger",
        commit="abc1234",
        started_at="2026-01-02T03:04:05+00:00",
        machine=Machine(cpu="A CPU", cores=2, memory_gb=8.0, kernel="6.1", python="3.11.7", packages={}),
        seconds=4,
        loads=[load],
    )


def test_the_gateways_table_follows_the_data_path_and_has_the_path_alone_beside_it():
    heads, rows = process_rows(measured_run(), "gateway")
    assert heads == ("gateway", "1 connection", "hot")
    assert rows == [
        (READ, "10.1", "3.0"),
        (OTHER, "-", "0.4"),
        (KERNEL, "5.0", "-"),
        (f"prediction-log: {LOG_THREAD}", "0.9", "-"),
        ("total", "16.0", "3.4"),
    ]


def test_the_summary_adds_the_processes_up():
    assert summary_rows(measured_run())[1] == [("gateway", "16.0"), ("redis", "4.0"), ("total", "20.0")]


def test_the_page_has_a_place_for_a_ledger_that_names_command_commit_and_a_busy_machine():
    page = with_report((PROJECT / "docs" / "performance.md").read_text(), markdown_report(measured_run()), BEGIN, END)
    written = page.partition(BEGIN)[2].partition(END)[0]
    for said in ("`python -m loadtests.ledger`", "`abc1234`", "2 cores (A CPU)", "0.50 of its cores", "measure again"):
        assert said in written


def test_help_teaches_how_to_get_the_profiler(capsys):
    with pytest.raises(SystemExit) as ended:
        command_line().parse_args(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for said in ("pip install py-spy", "--seconds", "--save", "SEKISHO_SECONDS", "Exit code"):
        assert said in shown
