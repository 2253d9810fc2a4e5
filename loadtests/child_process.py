"""A process of the benchmark's own: it is ended by its id, and dies with the benchmark however that ends."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import psutil

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
POLL_INTERVAL_S = 0.02
LOG_TAIL_LINES = 15

# Runs in the child first: "kill me when my parent dies", then become the program, under the same process id. The
# parent may have died before that was asked for, so it is looked for afterwards.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(parent):
    sys.exit("the parent is gone")
os.execv(command[0], command)
"""


class ProcessFailed(RuntimeError):
    """A process ended or never became ready. `log_file` holds what it said."""

    def __init__(self, name: str, problem: str, log_file: Path) -> None:
        tail = "\n  ".join(log_file.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
        super().__init__(f"{name} {problem}; the end of its log:\n  {tail}")
        self.name, self.problem, self.log_file = name, problem, log_file


def tied_to_parent(command: Iterable[str]) -> list[str]:
    """Wrap a command (its first part an absolute path), so that its process is killed when this one dies."""
    return [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]


class ChildProcess:
    """One running program. `role` names it in the table of costs; its output goes to `directory/name.log`."""

    def __init__(self, name: str, role: str, command: Iterable[str], directory: Path) -> None:
        self.name, self.role = name, role
        self._log_file = directory / f"{name}.log"
        # Settings that happen to stand in the caller's environment would change what is measured.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SEKISHO_")}
        # A session of its own keeps Ctrl-C from it: the benchmark ends its processes itself, in order.
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                tied_to_parent(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self._usage = psutil.Process(self._process.pid)

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready` says so. Raises ProcessFailed where the process ends first, or START_TIMEOUT_S passes."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not ready():
            code = self._process.poll()
            if code is not None:
                raise ProcessFailed(self.name, f"ended with code {code}", self._log_file)
            if time.monotonic() > deadline_s:
                raise ProcessFailed(self.name, f"was not ready after {START_TIMEOUT_S:g} s", self._log_file)
            time.sleep(POLL_INTERVAL_S)

    def check_alive(self) -> None:
        """Raise ProcessFailed where the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise ProcessFailed(self.name, f"ended with code {code}", self._log_file)

    def cpu_s(self) -> float:
        """CPU time used so far, user and system, with its children, in seconds."""
        return sum(times.user + times.system for times in (each.cpu_times() for each in self._family()))

    def memory_mb(self) -> float:
        """Resident memory, with its children, in MB."""
        return sum(each.memory_info().rss for each in self._family()) / 1e6

    def stop(self) -> None:
        """End the process: asked first, then killed. Harmless where it has ended."""
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask_to_stop(self) -> None:
        """Ask the process to end, and do not wait."""
        with suppress(ProcessLookupError):
            self._process.terminate()

    def _family(self) -> list[psutil.Process]:
        self.check_alive()
        return [self._usage, *self._usage.children(recursive=True)]


def stop_all(processes: list[ChildProcess]) -> None:
    """End processes: all are asked before the first is waited for."""
    for process in processes:
        process.ask_to_stop()
    for process in processes:
        process.stop()
