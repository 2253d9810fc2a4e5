"""py-spy beside a process, or around a program: where its threads are, a few hundred times a second."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtests.stage_ledger import FrameStack, ThreadCpu, parse_raw

# py-spy stops the process for each sample. With --nonblocking it does not, and reads stacks while they change: a tenth
# to a quarter of the samples fail, and short functions at the end of a stack are lost to their callers (the split then
# takes 1.7 µs of a request instead of 2.9; timed alone it is 2.3). With --native the gateway serves a quarter. Stopped
# 500 times a second it serves a quarter less; 250 times a second, what it serves otherwise.
RATE_PER_S = 250

FINISH_TIMEOUT_S = 60.0
"""What it may take beyond its sampling, to start and to write."""

_PROBLEM_BYTES = 2_000
_OPTIONS = ("--format", "raw", "--threads", "--rate", str(RATE_PER_S))


class ProfilerNotFound(RuntimeError):
    """There is no profiler to run."""

    def __init__(self) -> None:
        super().__init__("py-spy is neither on the PATH nor beside this Python: get it by `pip install py-spy`")


class ProfilerFailed(RuntimeError):
    """The profiler ended without a profile."""

    def __init__(self, target: str, problem: str) -> None:
        super().__init__(f"py-spy on {target} failed: {problem or 'it said nothing'}")
        self.target, self.problem = target, problem


def find_profiler() -> str:
    """Return the path of py-spy: on the PATH, else beside this interpreter. Raises ProfilerNotFound."""
    found = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if found is None:
        raise ProfilerNotFound
    return found


class Profile:
    """Sampling under way. target: how errors name it. Raises OSError where py-spy cannot be started."""

    def __init__(self, profiler: str, target: str, chosen: Sequence[str], limit_s: float, file: Path) -> None:
        self._target, self._file, self._limit_s = target, file, limit_s + FINISH_TIMEOUT_S
        self._process = subprocess.Popen(
            [profiler, "record", *_OPTIONS, "--output", str(file), *chosen],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def finish(self) -> tuple[list[FrameStack], str]:
        """Wait for the stacks, and for what was said meanwhile. Raises ProfilerFailed and ProfileLineWrong."""
        try:
            said, _ = self._process.communicate(timeout=self._limit_s)
        except subprocess.TimeoutExpired:
            raise ProfilerFailed(self._target, f"no profile after {self._limit_s:.0f} s") from None
        finally:
            self.stop()
        text = said.decode(errors="replace")
        if self._process.returncode != 0 or not self._file.exists():
            raise ProfilerFailed(self._target, text.strip()[-_PROBLEM_BYTES:])
        with self._file.open() as lines:
            return list(parse_raw(lines)), text

    def stop(self) -> None:
        """End it. Harmless where it has ended."""
        self._process.kill()
        self._process.wait()


def profile_process(profiler: str, name: str, pid: int, seconds: int, file: Path) -> Profile:
    """Sample a running Python process for so long."""
    return Profile(profiler, name, ("--duration", str(seconds), "--pid", str(pid)), seconds, file)


def profile_program(profiler: str, command: Sequence[str], limit_s: float, file: Path) -> Profile:
    """Run a Python program, and sample it from its start to its end."""
    return Profile(profiler, " ".join(command), ("--", *command), limit_s, file)


def thread_cpu(pid: int) -> dict[int, ThreadCpu]:
    """Read what each thread of a process has cost so far, by thread id. Raises OSError where nothing tells."""
    found = {}
    for directory in Path(f"/proc/{pid}/task").iterdir():
        try:
            text = (directory / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended since
        # proc_pid_stat(5): the name is in brackets and may hold any character; user and system are fields 14 and 15.
        name, _, rest = text.partition("(")[2].rpartition(")")
        fields = rest.split()
        found[int(directory.name)] = ThreadCpu(name, int(fields[11]), int(fields[12]))
    if not found:
        raise FileNotFoundError(f"/proc/{pid}/task has no thread")
    return found


def cpu_between(before: dict[int, ThreadCpu], after: dict[int, ThreadCpu]) -> dict[int, ThreadCpu]:
    """Subtract, thread by thread; one that has begun since had cost nothing. Those that cost nothing are left out."""
    spent = {}
    for thread_id, (name, *figures) in after.items():
        since = before.get(thread_id, ThreadCpu(name, 0, 0))[1:]
        used = ThreadCpu(name, *(now - then for now, then in zip(figures, since, strict=True)))
        if used.user_ticks or used.system_ticks:
            spent[thread_id] = used
    return spent
