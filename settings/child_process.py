"""Child processes that end with their parent, however that ends."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

STOP_TIMEOUT_S: Final = 10.0

LOG_TAIL_BYTES: Final = 64 * 1024
"""How much of a log is read for its last lines."""

# The kernel can send a process a signal when its parent dies (PR_SET_PDEATHSIG = 1), even by SIGKILL. It is set here by
# a few lines that run in the child and then become the program: a preexec_fn could deadlock where the parent has
# threads. Between fork and prctl the parent may have died already; then nobody would ever send the signal.
_DIE_WITH_PARENT: Final = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, int(sys.argv[1]))
if os.getppid() != int(sys.argv[2]):
    sys.exit(1)
os.execv(sys.argv[3], sys.argv[3:])
"""


class ChildProcess:
    """One child. It is in a session of its own, so that a Ctrl-C in the terminal reaches the parent alone.

    arguments: the program's absolute path, then its arguments. log_file: where its output goes; None discards it,
    unless `inherit_output` sends it where this process's goes.
    death_signal: what it is sent when this process dies.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        log_file: Path | None = None,
        directory: Path | None = None,
        death_signal: signal.Signals = signal.SIGTERM,
        inherit_output: bool = False,
    ) -> None:
        self._arguments, self._directory, self._death_signal = tuple(arguments), directory, death_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._inherit_output = inherit_output
        self.log_file = log_file

    def start(self) -> None:
        """Start it. Raises OSError where it cannot be started: FileNotFoundError where there is no such program."""
        program = self._arguments[0]
        # The shim would only find out in the child, where nobody hears of it.
        if not (Path(program).is_absolute() and os.access(program, os.X_OK)):
            raise FileNotFoundError(errno.ENOENT, "no such program", program)
        # The signal is sent when the *thread* that made the child ends, so that a child started from a worker thread
        # would die with that. It is made by a thread of its own, which ends only after it.
        made = threading.Event()
        failures: list[OSError] = []
        threading.Thread(target=self._run, args=(made, failures), name="child", daemon=True).start()
        made.wait()
        if failures:
            raise failures[0]

    @property
    def pid(self) -> int:
        """Its process id. Raises RuntimeError unless it was started."""
        if self._process is None:
            raise RuntimeError("the child was not started")
        return self._process.pid

    def ended(self) -> str | None:
        """Say how it ended (`exit code 3`, `SIGKILL`); None while it lives."""
        code = None if self._process is None else self._process.poll()
        if code is None:
            return None
        if code >= 0:
            return f"exit code {code}"
        known = -code in {number.value for number in signal.Signals}  # most real-time signals have no name
        return signal.Signals(-code).name if known else f"signal {-code}"

    def wait(self) -> str:
        """Wait until it has ended, and say how. For a thread: it blocks."""
        if self._process is not None:
            self._process.wait()
        return self.ended() or "never started"

    def ask_to_end(self) -> None:
        """Send it SIGTERM. Harmless when it has ended already."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End it: asked first, then killed. Harmless when it has ended already."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def last_lines(self, count: int = 5) -> str:
        """Give the end of its log; empty where it has none."""
        if self.log_file is None or not self.log_file.exists():
            return ""
        with self.log_file.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            tail = file.read(LOG_TAIL_BYTES)
        return "\n".join(tail.decode("utf-8", "replace").splitlines()[-count:])

    def _run(self, made: threading.Event, failures: list[OSError]) -> None:
        shim = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(int(self._death_signal)), str(os.getpid())]
        output: IO[bytes] | int | None = None if self._inherit_output else subprocess.DEVNULL
        try:
            if self.log_file is not None:
                self.log_file.parent.mkdir(parents=True, exist_ok=True)
                output = self.log_file.open("ab")
            self._process = subprocess.Popen(  # noqa: S603 - the caller's own program and arguments
                [*shim, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=None if self._inherit_output else subprocess.STDOUT,
                cwd=self._directory,
                start_new_session=True,
            )
        except OSError as error:
            failures.append(error)
            return
        finally:
            if output is not None and not isinstance(output, int):
                output.close()
            made.set()
        self._process.wait()
