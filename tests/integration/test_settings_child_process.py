"""Real processes: a child ends with its parent, and when it is told to."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import psutil
import pytest

from settings.child_process import LOG_TAIL_BYTES, ChildProcess

pytestmark = pytest.mark.integration

DEADLINE_S = 20.0
FOREVER = "import signal; print('ready', flush=True); signal.pause()"
STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
while True:
    signal.pause()
"""
PARENT = """
import signal, sys
from pathlib import Path
from settings.child_process import ChildProcess
program, death_signal, pid_file, log_file = sys.argv[1:]
child = ChildProcess(
    [sys.executable, "-c", program], death_signal=signal.Signals(int(death_signal)), log_file=Path(log_file)
)
child.start()
Path(pid_file).write_text(f"{child.pid}\\n")
signal.pause()
"""
ROOT = Path(__file__).parents[2]


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:g} s: {what}"
        time.sleep(0.01)


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[..., ChildProcess]]:
    """Start a Python program as a child; whatever is left is killed by its id."""
    started: list[ChildProcess] = []

    def start(program: str, **options: object) -> ChildProcess:
        made = ChildProcess(
            [sys.executable, "-c", program],
            **{"log_file": tmp_path / "logs" / f"{len(started)}.log", **options},  # type: ignore[arg-type]
        )
        made.start()
        started.append(made)
        return made

    yield start
    for one in started:
        one.stop(0)


def ready(one: ChildProcess) -> ChildProcess:
    until(lambda: one.last_lines(1) == "ready", "the child says that it is ready")
    return one


def test_a_child_lives_until_it_is_stopped_and_then_names_the_signal(child: Callable[..., ChildProcess]):
    one = ready(child(FOREVER))
    assert one.ended() is None
    assert running(one.pid)
    one.stop()
    assert one.ended() == "SIGTERM"
    assert not running(one.pid)
    one.stop()  # harmless


def test_a_stubborn_child_is_killed(child: Callable[..., ChildProcess]):
    one = ready(child(STUBBORN))
    one.stop(0.1)
    assert one.ended() == "SIGKILL"
    assert not running(one.pid)


@pytest.mark.parametrize(
    ("program", "how"),
    [
        ("raise SystemExit(3)", "exit code 3"),
        ("pass", "exit code 0"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGRTMIN + 1)", f"signal {signal.SIGRTMIN + 1}"),
    ],
)
def test_a_child_says_how_it_ended(child: Callable[..., ChildProcess], program: str, how: str):
    one = child(program)
    until(one.ended, "the child ends")
    assert one.ended() == how


def child_of_a_killed_parent(directory: Path, program: str, death_signal: int, killed_by: int) -> int:
    """Start a parent that starts a child, kill the parent, and return the child's id."""
    pid_file, log_file = directory / "pid", directory / "log"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, program, str(int(death_signal)), str(pid_file), str(log_file)], cwd=ROOT
    )
    try:
        until(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"), "the parent has a child")
        until(lambda: "ready" in log_file.read_text(), "the child runs")
        pid = int(pid_file.read_text())
        assert running(pid)
    finally:
        parent.send_signal(killed_by)
        parent.wait(DEADLINE_S)
    return pid


@pytest.mark.parametrize("killed_by", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_dies_with_its_parent_however_that_is_killed(tmp_path: Path, killed_by: signal.Signals):
    pid = child_of_a_killed_parent(tmp_path, FOREVER, signal.SIGTERM, killed_by)
    until(lambda: not running(pid), "the child is gone")


def test_a_stubborn_child_may_be_killed_when_its_parent_dies(tmp_path: Path):
    pid = child_of_a_killed_parent(tmp_path, STUBBORN, signal.SIGKILL, signal.SIGKILL)
    try:
        until(lambda: not running(pid), "the child is gone")
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_child_started_from_a_thread_outlives_it(child: Callable[..., ChildProcess]):
    made: list[ChildProcess] = []
    thread = Thread(target=lambda: made.append(child(FOREVER)))
    thread.start()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert running(ready(made[0]).pid)
    assert made[0].ended() is None


def test_a_child_is_in_a_session_of_its_own(child: Callable[..., ChildProcess]):
    one = ready(child(FOREVER))
    assert os.getsid(one.pid) == one.pid != os.getsid(0)


def test_a_child_runs_in_its_directory_and_its_output_is_in_the_log(child: Callable[..., ChildProcess], tmp_path: Path):
    one = child("import os, sys; print(os.getcwd()); print('wrong', file=sys.stderr)", directory=tmp_path)
    until(one.ended, "the child ends")
    assert sorted(one.last_lines(2).splitlines()) == sorted([str(tmp_path), "wrong"])


def test_the_last_lines_of_a_long_log_are_read_from_its_end(child: Callable[..., ChildProcess]):
    one = child(f"for i in range({LOG_TAIL_BYTES}): print(i)")
    until(one.ended, "the child ends")
    assert one.last_lines(2).split() == [str(LOG_TAIL_BYTES - 2), str(LOG_TAIL_BYTES - 1)]


def test_a_child_without_a_log_has_no_last_lines(child: Callable[..., ChildProcess]):
    one = child("print('heard by nobody')", log_file=None)
    until(one.ended, "the child ends")
    assert one.last_lines() == ""


@pytest.mark.parametrize("program", ["/nowhere/at/all", "python3", str(Path(__file__))])
def test_a_program_that_cannot_be_run_is_an_error_at_once(program: str):
    made = ChildProcess([program])
    with pytest.raises(FileNotFoundError, match="no such program"):
        made.start()


def test_a_log_file_that_cannot_be_made_is_an_error_at_once(tmp_path: Path):
    (tmp_path / "file").touch()
    made = ChildProcess([sys.executable, "-c", "pass"], log_file=tmp_path / "file" / "log")
    with pytest.raises(OSError, match=r"exists|directory"):
        made.start()


def test_a_child_that_was_not_started_has_no_id_and_is_stopped_harmlessly():
    made = ChildProcess([sys.executable])
    made.stop()
    assert made.ended() is None
    with pytest.raises(RuntimeError, match="was not started"):
        _ = made.pid
