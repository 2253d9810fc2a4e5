"""The result file: everything that a run measured, with what it takes to judge and repeat it."""

from pathlib import Path

import msgspec

from loadtests.cell import Cell
from loadtests.goals import GoalResult
from loadtests.machine import Machine
from loadtests.summary import Summary

FORMAT = 1


class BenchResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `started_at`: RFC 3339, UTC."""

    format: int = FORMAT
    command: str
    commit: str
    started_at: str
    machine: Machine
    rounds: int
    seconds: float
    arrivals: str = "poisson"
    summaries: list[Summary]
    goals: list[GoalResult]
    cells: list[Cell]


def write_result(result: BenchResult, file: Path) -> None:
    """Write a run as indented JSON. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def read_result(file: Path) -> BenchResult:
    """Read a run. Raises OSError, and msgspec.ValidationError where it is none."""
    return msgspec.json.decode(file.read_bytes(), type=BenchResult)
