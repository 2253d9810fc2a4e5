"""What a soak found, and whether that is what it should be."""

import msgspec
import numpy as np

from loadtests.cell import CellResult
from loadtests.gateway_counters import GatewayCounters
from loadtests.goals import GoalResult
from loadtests.machine import Machine
from loadtests.stack_process import ProcessUsage

FORMAT = 1
GENERATOR = "load generator"
MEMORY_MB_PER_MINUTE_MAX = 1.0
SLOPE_MINUTES_MIN = 5.0
"""Of a soak whose slope is judged: within seconds, a tenth of a megabyte is a megabyte a minute."""

"""Of gateway, workers and Redis together, over the second half: what counts as flat."""


class SoakSample(msgspec.Struct, frozen=True, kw_only=True):
    """A few seconds: what was answered in them, and what each program held at their end."""

    at_s: float
    rate_per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    errors: int
    """Since the start."""

    waiting: int
    processes: dict[str, ProcessUsage]
    gateway: GatewayCounters


class SoakMinute(msgspec.Struct, frozen=True, kw_only=True):
    """A minute's answers; latencies from the intended send time."""

    minute: int
    answers: int
    rate_per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


class LogCount(msgspec.Struct, frozen=True, kw_only=True):
    """The prediction log, counted at each of its ends. `answers`: to every request, the warm-up's included."""

    answers: int
    gateway: GatewayCounters
    rows_in_files: int
    bytes_in_files: int

    def problems(self) -> list[str]:
        """Say what is missing or too much; nothing where the log is complete."""
        told = self.gateway
        found = {
            f"{self.answers:,} answers, but {told.rows_offered:,} rows offered to the log": (
                told.rows_offered != self.answers
            ),
            f"{told.rows_offered:,} rows offered, but {told.rows_written:,} written, {told.rows_dropped:,} dropped and "
            f"{told.rows_pending:,} pending": (
                told.rows_offered != told.rows_written + told.rows_dropped + told.rows_pending
            ),
            f"the log dropped {told.rows_dropped:,} rows": told.rows_dropped > 0,
            f"{self.answers:,} answers, but {self.rows_in_files:,} rows in the log's files": (
                self.rows_in_files != self.answers
            ),
        }
        return [problem for problem, is_so in found.items() if is_so]


class SoakResult(msgspec.Struct, frozen=True, kw_only=True):
    """One soak. `started_at`: RFC 3339, UTC."""

    format: int = FORMAT
    command: str
    commit: str
    started_at: str
    machine: Machine
    minutes: float
    share: float
    capacity_per_s: float
    """Closed loop over 64 connections, before."""

    offered_per_s: float
    result: CellResult
    log: LogCount
    by_minute: list[SoakMinute]
    samples: list[SoakSample]

    @property
    def problems(self) -> list[str]:
        """What makes the soak fail."""
        wrong = [f"{problem} ({count:,} times)" for problem, count in self.result.errors.items()]
        silent = [f"{self.result.unanswered:,} requests had no answer"] if self.result.unanswered else []
        return [*wrong, *silent, *self.log.problems()]

    def goals(self) -> list[GoalResult]:
        """What is told and never fails a soak."""
        slope = memory_slope_mb_per_minute(self.samples, served_by(self.samples))
        if self.minutes < SLOPE_MINUTES_MIN:
            slope = None
        return [GoalResult("memory over the second half, MB a minute", MEMORY_MB_PER_MINUTE_MAX, False, slope)]


def served_by(samples: list[SoakSample]) -> list[str]:
    """The programs under test."""
    return [name for name in (samples[0].processes if samples else ()) if name != GENERATOR]


def memory_mb(sample: SoakSample, names: list[str]) -> float:
    """What these programs hold together."""
    return sum(sample.processes[name].memory_mb for name in names)


def memory_slope_mb_per_minute(samples: list[SoakSample], names: list[str]) -> float | None:
    """Least-squares slope of these programs' memory over the second half; None of fewer than two samples."""
    late = samples[len(samples) // 2 :]
    if len(late) < 2:
        return None
    times_min, held_mb = [each.at_s / 60 for each in late], [memory_mb(each, names) for each in late]
    slope, _ = np.polyfit(times_min, held_mb, 1)
    return float(slope)
