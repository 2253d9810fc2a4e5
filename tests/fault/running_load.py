"""A load process under way, seen from the test."""

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from tests.fault.load_records import Asked, LoadSpec
from tests.integration.gateway_client import until
from tests.integration.gateway_stack import ROOT

ENDS_WITHIN_S = 30.0


class RunningLoad:
    """What a load has told so far. Start it by `running_load`."""

    def __init__(self, spec: LoadSpec) -> None:
        self.spec = spec
        self.asked: list[Asked] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fault.load_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(spec) + b"\n")
        self._process.stdin.flush()
        self._reader = threading.Thread(target=self._read, name="load", daemon=True)
        self._reader.start()

    def kinds(self, since_s: float = 0.0) -> Counter[str]:
        """Count fates."""
        return Counter(asked.kind for asked in self.asked.copy() if asked.due_s >= since_s)

    def wait_for(self, count: int, timeout_s: float = 30.0) -> None:
        """Wait until so many in all are answered."""
        until(f"{count} answers", lambda: len(self.asked) >= count or not self._reader.is_alive(), timeout_s)
        assert len(self.asked) >= count, f"the load ended after {len(self.asked)} answers"

    def run_for(self, seconds: float) -> None:
        """Let it run: wait until some request that was due so much later is answered."""
        due_s = time.monotonic() + seconds
        until(
            f"{seconds:g} s more of load",
            lambda: any(asked.due_s >= due_s for asked in self.asked[-200:]) or not self._reader.is_alive(),
            seconds + ENDS_WITHIN_S,
        )

    def finish(self) -> None:
        """Wait until its phases are over and every answer has come."""
        seconds = sum(phase.seconds for phase in self.spec.phases)
        self._reader.join(seconds + self.spec.answer_s_max + ENDS_WITHIN_S)
        assert not self._reader.is_alive(), "the load does not end"

    def stop(self) -> None:
        """Let what is under way be answered, and end it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._reader.join(self.spec.answer_s_max + ENDS_WITHIN_S)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.asked += msgspec.json.decode(line, type=list[Asked])


@contextmanager
def running_load(spec: LoadSpec) -> Iterator[RunningLoad]:
    """Load for as long as the context lasts, or the phases do."""
    load = RunningLoad(spec)
    try:
        yield load
    finally:
        load.stop()


def quantile_ms(asked: Sequence[Asked], q: float) -> float:
    """Latency below which the share `q` of the answered ones lies, in ms; NaN where none was."""
    latencies = sorted(a.latency_s for a in asked if a.status)
    return latencies[min(len(latencies) - 1, int(q * len(latencies)))] * 1000 if latencies else float("nan")
