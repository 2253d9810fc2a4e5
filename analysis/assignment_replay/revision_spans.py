"""Which revisions a log names, when, and for how long two of them answered side by side."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import ibis

from analysis.assignment_replay.history import Key
from analysis.assignment_replay.replay_log import ReplayLog, facts_of
from analysis.errors import UnreadableFile

REVISIONS_MAX: Final = 10_000
"""In one log; each is held in memory while it is replayed, at some 15 kB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionSpan:
    """The rows of one part of the log that name one revision.

    key: None where they name no experiment, or one without its revision. first_us, last_us: of the rows that were
    answered; None where all are shadows. of_several: whether some request had several instances.
    shadows: how many of the rows are.
    """

    experiment: str | None
    key: Key | None
    rows: int
    first_us: int | None
    last_us: int | None
    of_several: bool
    shadows: int


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two revisions of an experiment, and for how long rows of both were answered."""

    experiment: str
    revisions: tuple[int, int]
    overlap_us: int


def revision_spans(log: ReplayLog) -> tuple[tuple[RevisionSpan, ...], ...]:
    """Find them, by part of the log. Raises UnreadableFile where they are too many to be held."""
    found = tuple(tuple(map(_span, log.lines(_grouped(facts_of(part.table))))) for part in log.parts)
    keys = {span.key for spans in found for span in spans} - {None}
    if len(keys) > REVISIONS_MAX:
        raise UnreadableFile(log.root, f"more revisions than the {REVISIONS_MAX} that are replayed: narrow the window")
    return found


def joined(spans: Iterable[RevisionSpan]) -> dict[Key, RevisionSpan]:
    """Join the spans of all parts by revision, in the order of experiments and first rows."""
    found: dict[Key, RevisionSpan] = {}
    for span in spans:
        if span.key is None:
            continue
        known = found.get(span.key)
        found[span.key] = span if known is None else _both(known, span)
    return dict(sorted(found.items(), key=lambda item: (item[0][0], item[1].first_us or 0, item[0][1])))


def largest_overlap(spans: dict[Key, RevisionSpan]) -> Overlap | None:
    """Find which two revisions of one experiment answered side by side for longest; None where no two did.

    spans: in the order of experiments and first rows.
    """
    largest: Overlap | None = None
    latest: dict[str, tuple[int, int]] = {}
    for (name, revision), span in spans.items():
        if span.first_us is None or span.last_us is None:
            continue
        end_us, before = latest.get(name, (span.first_us, revision))
        overlap_us = min(end_us, span.last_us) - span.first_us
        if before != revision and overlap_us > 0 and (largest is None or overlap_us > largest.overlap_us):
            largest = Overlap(name, (before, revision), overlap_us)
        latest[name] = max((end_us, before), (span.last_us, revision))
    return largest


def _grouped(rows: ibis.Table) -> ibis.Table:
    answered = ~rows.shadow
    return (
        rows.group_by("experiment", "revision")
        .agg(
            rows=rows.count(),
            first_us=rows.at_us.min(where=answered),
            last_us=rows.at_us.max(where=answered),
            last_row=rows.row.max(),
            shadows=rows.count(where=rows.shadow),
        )
        .limit(REVISIONS_MAX + 2)
    )  # one may be of rows without an experiment


def _span(line: dict[str, Any]) -> RevisionSpan:
    experiment, revision = line["experiment"], line["revision"]
    key = None if experiment is None or revision is None else (experiment, revision)
    return RevisionSpan(
        experiment=experiment,
        key=key,
        rows=line["rows"],
        first_us=line["first_us"],
        last_us=line["last_us"],
        of_several=line["last_row"] > 0,
        shadows=line["shadows"],
    )


def _both(one: RevisionSpan, other: RevisionSpan) -> RevisionSpan:
    firsts = [us for us in (one.first_us, other.first_us) if us is not None]
    lasts = [us for us in (one.last_us, other.last_us) if us is not None]
    return replace(
        one,
        rows=one.rows + other.rows,
        first_us=min(firsts, default=None),
        last_us=max(lasts, default=None),
        of_several=one.of_several or other.of_several,
        shadows=one.shadows + other.shadows,
    )
