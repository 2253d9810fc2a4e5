"""What one fault did to the answers: goodput before, during and after it, failures, and how soon it was over."""

from collections import Counter
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Literal

import msgspec

from tests.fault.load_records import HUNG_UP, Asked
from tests.fault.running_load import quantile_ms

RECOVERED_SHARE = 0.95
"""Of the goodput before: so much of it again, for a while, is a recovery."""

STEP_S = 0.05


class Span(msgspec.Struct, frozen=True):
    """Answers to what was due within a time. `good`: share that was answered rightly within the deadline."""

    seconds: float
    asked: int
    good: float
    p50_ms: float | None
    p99_ms: float | None

    @property
    def goodput_per_s(self) -> float:
        """Right answers in time, a second."""
        return self.good * self.asked / self.seconds


class FaultRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One fault of one run."""

    number: int
    fault: str
    mode: Literal["fast", "full"]
    before: Span
    during: Span
    after: Span
    failures: dict[str, int]
    """Refusals and requests without an answer since the fault began, by kind."""

    fallbacks: dict[str, int]
    """Right answers that a fallback gave since then, by its name."""

    noticed_s: float | None
    """From the fault until the last request was due that suffered from it while it lasted; None: none did."""

    recovered_s: float | None
    """From its end until answers were as good as before; None: not within the run."""

    whole_s: float
    """From its end until the last request was due that was not answered whole; 0: all were."""

    figures: dict[str, str] = {}
    """What else was seen."""


def good(asked: Asked, deadline_s: float) -> bool:
    """Whether it was answered rightly and in time."""
    return asked.right and asked.latency_s <= deadline_s


def span(asked: Sequence[Asked], from_s: float, until_s: float, deadline_s: float) -> Span:
    """Sum up what was due within a time. Clients that went away on purpose do not count."""
    within = [a for a in asked if from_s <= a.due_s < until_s and a.failure != HUNG_UP]
    share = sum(good(a, deadline_s) for a in within) / len(within) if within else 0.0
    return Span(
        until_s - from_s, len(within), share, _number(quantile_ms(within, 0.5)), _number(quantile_ms(within, 0.99))
    )


def recovered_s(
    asked: Sequence[Asked], since_s: float, until_s: float, for_s: float, before: Span, deadline_s: float
) -> float | None:
    """Say how long after `since_s` answers were good again, for `for_s`. None: not before `until_s`."""
    at_s = since_s
    while at_s + for_s <= until_s:
        if span(asked, at_s, at_s + for_s, deadline_s).good >= RECOVERED_SHARE * before.good:
            return at_s - since_s
        at_s += STEP_S
    return None


def noticed_s(asked: Sequence[Asked], from_s: float, until_s: float, deadline_s: float) -> float | None:
    """Say how long callers suffered from a fault while it lasted."""
    bad = [a.due_s for a in asked if from_s <= a.due_s < until_s and a.failure != HUNG_UP and not good(a, deadline_s)]
    return max(bad) - from_s if bad else None


def whole_s(asked: Sequence[Asked], since_s: float) -> float:
    """Say how long fallbacks or failures went on after a fault had ended."""
    late = [a.due_s for a in asked if a.due_s >= since_s and a.kind not in {"whole", HUNG_UP}]
    return max(late) - since_s if late else 0.0


def failures(asked: Sequence[Asked], from_s: float) -> dict[str, int]:
    """Count what was refused or not answered, by kind."""
    return dict(Counter(a.kind for a in asked if a.due_s >= from_s and not a.right and a.failure != HUNG_UP))


def fallbacks(asked: Sequence[Asked], from_s: float) -> dict[str, int]:
    """Count the fallbacks of right answers, by name."""
    return dict(Counter(name for a in asked if a.due_s >= from_s and a.right for name in a.degraded))


def append_record(file: Path, record: FaultRecord) -> None:
    """Add a record to a file of JSON lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as lines:
        lines.write(msgspec.json.encode(record) + b"\n")


def read_records(file: Path) -> list[FaultRecord]:
    """Read them back."""
    return [msgspec.json.decode(line, type=FaultRecord) for line in file.read_bytes().splitlines()]


def _number(value: float) -> float | None:
    return None if isnan(value) else value
