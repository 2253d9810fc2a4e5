"""The result file: everything that a run measured, with what it takes to judge and repeat it."""

from pathlib import Path

import msgspec

from loadtests.cell import Cell
from loadtests.goals import GoalResult
from loadtests.machine import Machine
from loadtests.summary import Summary, summarise

FORMAT = 2


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


def write_result(result: msgspec.Struct, file: Path) -> None:
    """Write a run as indented JSON. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def read_result(file: Path) -> BenchResult:
    """Read a run, of format 1 too. Raises OSError, and msgspec.ValidationError where it is none."""
    written = file.read_bytes()
    if msgspec.json.decode(written, type=_AnyFormat).format == 1:
        return _of_format_1(msgspec.json.decode(written, type=_Format1))
    return msgspec.json.decode(written, type=BenchResult)


class _AnyFormat(msgspec.Struct):
    format: int


class _Format1(msgspec.Struct):
    """Its summaries kept the median of a ratio only; they are summed up anew from the cells."""

    command: str
    commit: str
    started_at: str
    machine: Machine
    rounds: int
    seconds: float
    goals: list[GoalResult]
    cells: list[Cell]


def _of_format_1(read: _Format1) -> BenchResult:
    return BenchResult(format=1, summaries=summarise(read.cells), **msgspec.structs.asdict(read))
