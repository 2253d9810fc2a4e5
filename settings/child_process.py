"""Child processes that end with their parent, however that ends."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

STOP_TIMEOUT_S: Final = 10.0

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

    arguments: the program's absolute path, then its arguments. log_file: where its output goes; None discards it.
    death_signal: what it is sent when this process dies.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        log_file: Path | None = None,
        directory: Path | None = None,
        death_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self._arguments, self._directory, self._death_signal = tuple(arguments), directory, death_signal
        self._process: subprocess.Popen[bytes] | None = None
        self.log_file = log_file

    def start(self) -> None:
        """Start it. Raises OSError where it cannot be started."""
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
        return f"exit code {code}" if code >= 0 else signal.Signals(-code).name

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
        """Give the end of its log."""
        if self.log_file is None or not self.log_file.exists():
            return ""
        return "\n".join(self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])

    def _run(self, made: threading.Event, failures: list[OSError]) -> None:
        shim = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(int(self._death_signal)), str(os.getpid())]
        output: IO[bytes] | int = subprocess.DEVNULL
        try:
            if self.log_file is not None:
                self.log_file.parent.mkdir(parents=True, exist_ok=True)
                output = self.log_file.open("ab")
            self._process = subprocess.Popen(  # noqa: S603 - the caller's own program and arguments
                [*shim, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                start_new_session=True,
            )
        except OSError as error:
            failures.append(error)
            return
        finally:
            if not isinstance(output, int):
                output.close()
            made.set()
        self._process.wait()
