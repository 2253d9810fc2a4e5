"""The load generator as a process: started, listened to, and ended."""

import contextlib
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path

import msgspec

from loadtests.cell import CellInterval, CellResult, CellSpec, GeneratorLine

EXTRA_S = 30.0
"""What it may take beyond its cell, for starting, draining and summing up."""

_PROBLEM_BYTES = 2_000


class GeneratorFailed(RuntimeError):
    """The load generator ended without a result."""

    def __init__(self, stack: str, load: str, problem: str) -> None:
        super().__init__(f"{stack}, {load}: the load generator failed: {problem}")
        self.stack, self.load, self.problem = stack, load, problem


class GeneratorProcess:
    """One cell under way. stack, load: how errors name it. Raises OSError where it cannot be started."""

    def __init__(self, stack: str, load: str, spec: CellSpec) -> None:
        self._stack, self._load = stack, load
        self._limit_s = spec.warmup_s + spec.seconds + EXTRA_S
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed where the process is waited for
        self._process = subprocess.Popen(
            [sys.executable, "-m", "loadtests.load_generator"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=Path(__file__).parent.parent,
        )
        assert self._process.stdin is not None
        # Where it has ended already, its exit code and what it said are the better message.
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(msgspec.json.encode(spec))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def result(self) -> CellResult:
        """Wait for the result. Raises GeneratorFailed."""
        *_, last = self.told()
        assert isinstance(last, CellResult)
        return last

    def told(self) -> Generator[CellInterval | CellResult, None, None]:
        """Wait for each interval and, last, the result. Raises GeneratorFailed; the process has ended afterwards."""
        # Reading its output has no time limit of its own, but ends when the process does.
        timer = threading.Timer(self._limit_s, self._process.kill)
        timer.start()
        try:
            assert self._process.stdout is not None
            result = None
            for line in self._process.stdout:
                told = msgspec.json.decode(line, type=GeneratorLine)
                if told.interval is not None:
                    yield told.interval
                result = told.result
            code = self._process.wait()
            if result is None:
                raise GeneratorFailed(self._stack, self._load, self._problem(code))
            yield result
        finally:
            timer.cancel()
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._log.close()

    def _problem(self, code: int) -> str:
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip()[-_PROBLEM_BYTES:]
        return said or f"it ended with {code}, at the latest {self._limit_s:.0f} s after its start"
