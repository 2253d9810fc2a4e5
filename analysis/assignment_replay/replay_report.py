"""What a replay of assignments found: the JSON that `sekisho-analysis replay-assignments --json` writes."""

from datetime import datetime
from typing import Final

import msgspec

SCHEMA_VERSION: Final = 1


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One decision, as it was logged or as the revision gives it. reason: known where it was recomputed."""

    reason: str | None = None
    epoch: int | None = None
    variant: str | None = None
    version: str | None = None
    enrol_bucket: int | None = None
    split_bucket: int | None = None
    probability: float | None = None


class Mismatch(msgspec.Struct, frozen=True, kw_only=True):
    """A row that is not explained. recomputed: None where there is no revision to ask.

    For `two_arms` and `shadow_pair` it is the decision that the row does not agree with: that of another row.
    """

    prediction_id: str
    row: int
    at: datetime
    model: str
    experiment: str | None
    revision: int | None
    unit: str | None
    forced: bool
    shadow: bool
    variant_served: str | None
    logged: Decision
    recomputed: Decision | None = None


class MismatchClass(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with some rows, and the first of them. For `two_arms`, `count` counts units and epochs."""

    name: str
    count: int
    examples: tuple[Mismatch, ...]


class RevisionRows(msgspec.Struct, frozen=True, kw_only=True):
    """The rows that name a revision. first, last: of those that were answered; None where all are shadows."""

    experiment: str
    revision: int
    epochs: tuple[int, ...]
    """Of the history; none where it has no such revision, and several where the number was given twice."""

    rows: int
    mismatches: int
    first: datetime | None = None
    last: datetime | None = None


class RevisionOverlap(msgspec.Struct, frozen=True, kw_only=True):
    """The longest time for which two revisions of one experiment answered side by side."""

    experiment: str
    revisions: tuple[int, int]
    overlap_ms: float


class ReplayReport(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    rows: of the log, within the window. rows_without_experiment: those of them that no experiment decided.
    decisions: how many different ones were recomputed. rows_by_reason: of the explained rows, by what the code that
    serves says. rows_targeting_unknown: explained, but for whether `where` was true of the request.
    mismatches: all classes together; a row is counted in one of them, besides which it may be part of a `two_arms` or
    a `shadow_pair`.
    """

    schema_version: int = SCHEMA_VERSION
    log: str
    model: str | None
    start: datetime | None
    end: datetime | None
    history: tuple[str, ...]
    rows: int
    rows_without_experiment: int
    decisions: int
    rows_by_reason: dict[str, int]
    rows_targeting_unknown: int
    revisions: tuple[RevisionRows, ...]
    numbered_twice: tuple[tuple[str, int], ...]
    mismatches: int
    mismatch_classes: tuple[MismatchClass, ...]
    overlap: RevisionOverlap | None = None


def encode_replay(report: ReplayReport) -> bytes:
    """Encode as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
