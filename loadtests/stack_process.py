"""One process of a stack: started, waited for, and asked what it has cost."""

import signal
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import psutil

from settings.child_process import ChildProcess

START_TIMEOUT_S = 60.0
POLL_INTERVAL_S = 0.02
LOG_TAIL_LINES = 15


class ProcessFailed(RuntimeError):
    """A process ended or never became ready. `log` is the end of what it said."""

    def __init__(self, name: str, problem: str, log: str) -> None:
        super().__init__(f"{name} {problem}; the end of its log:\n{log or '(empty)'}")
        self.name, self.problem, self.log = name, problem, log


class ProcessUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What a program holds at one time, with its children."""

    memory_mb: float
    threads: int
    fds: int


class StackProcess:
    """A running program. `role` names it in the table of costs; its output goes to `directory/name.log`.

    It dies with this process, however that ends. Raises OSError where it cannot be started.
    """

    def __init__(self, name: str, role: str, command: Sequence[str], directory: Path) -> None:
        self.name, self.role = name, role
        self._child = ChildProcess(command, log_file=directory / f"{name}.log", death_signal=signal.SIGKILL)
        self._child.start()
        self._usage = psutil.Process(self._child.pid)

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready` says so. Raises ProcessFailed where the process ends first, or START_TIMEOUT_S passes."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not ready():
            self.check_alive()
            if time.monotonic() > deadline_s:
                raise self._failed(f"was not ready after {START_TIMEOUT_S:g} s")
            time.sleep(POLL_INTERVAL_S)

    def check_alive(self) -> None:
        """Raise ProcessFailed where the process has ended."""
        ended = self._child.ended()
        if ended is not None:
            raise self._failed(f"ended with {ended}")

    def cpu_s(self) -> float:
        """CPU time used so far, user and system, with its children, in seconds. Raises ProcessFailed."""
        return sum(times.user + times.system for times in (each.cpu_times() for each in self._family()))

    def memory_mb(self) -> float:
        """Resident memory, with its children, in MB. Raises ProcessFailed."""
        return sum(each.memory_info().rss for each in self._family()) / 1e6

    def usage(self) -> ProcessUsage:
        """Resident memory, threads and open files, with its children. Raises ProcessFailed."""
        return usage_of(self._family())

    def stop(self) -> None:
        """End the process: asked first, then killed. Harmless where it has ended."""
        self._child.stop()

    def _family(self) -> list[psutil.Process]:
        self.check_alive()
        return [self._usage, *self._usage.children(recursive=True)]

    def _failed(self, problem: str) -> ProcessFailed:
        return ProcessFailed(self.name, problem, self._child.last_lines(LOG_TAIL_LINES))


def usage_of(processes: Iterable[psutil.Process]) -> ProcessUsage:
    """What these processes hold together."""
    found = [(each.memory_info().rss / 1e6, each.num_threads(), each.num_fds()) for each in processes]
    memory_mb, threads, fds = (sum(column) for column in zip(*found, strict=True))
    return ProcessUsage(memory_mb=memory_mb, threads=int(threads), fds=int(fds))


def stop_all(processes: Iterable[StackProcess]) -> None:
    """End processes, all at the same time."""
    to_stop = list(processes)
    with ThreadPoolExecutor(max(1, len(to_stop)), "stop") as pool:
        list(pool.map(StackProcess.stop, to_stop))
