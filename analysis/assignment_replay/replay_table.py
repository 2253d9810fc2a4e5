"""A replay for a terminal: whether all is explained, in a line; then by reason and revision; then what is not."""

from datetime import UTC, datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from analysis.assignment_replay.recomputation import Fault
from analysis.assignment_replay.replay_report import Decision, Mismatch, MismatchClass, ReplayReport, RevisionRows
from analysis.plain_text import plain
from experiments import Reason

ROWS_MAX: Final = 200
"""More revisions than a person reads; JSON has them all. Those with mismatches come first."""

_NONE: Final = "-"

_FAULTS: Final = {
    Fault.NO_EXPERIMENT: "no experiment is named, and yet an arm, a bucket or a revision",
    Fault.UNKNOWN_REVISION: "no such revision in the history",
    Fault.MODEL: "an experiment on another model",
    Fault.EPOCH: "another epoch than the revision's",
    Fault.FORCED: "forced, but not into an arm of a running experiment",
    Fault.NO_UNIT: "decided by an experiment without a unit",
    Fault.REASON: "the revision decides in another way",
    Fault.ENROL_BUCKET: "another enrolment bucket than the unit's",
    Fault.SPLIT_BUCKET: "another split bucket than the unit's",
    Fault.ARM: "another arm than the unit's",
    Fault.PROBABILITY: "another assignment probability than the arm's",
    Fault.SERVED: "neither the assigned arm answered nor a fallback",
    Fault.VERSION: "the arm answered by another version than its own",
    Fault.SHADOW: "scored once more, and the revision has no such shadow",
    Fault.TWO_ARMS: "one unit drawn into two arms in one epoch",
    Fault.SHADOW_PAIR: "a shadow's assignment differs from the answered row's",
}

_REASONS: Final = {
    Reason.SPLIT: "drawn by the split",
    Reason.OVERRIDE: "overridden",
    Reason.WINNER: "given the winner",
    Reason.FORCED: "forced by the caller",
    Reason.NOT_ENROLLED: "not enrolled",
    Reason.NOT_TARGETED: "not targeted",
    Reason.HELD_OUT: "held out",
    Reason.OTHER_SLOT: "in another slot of the layer",
    Reason.NOT_RUNNING: "experiment not running",
    Reason.NO_EXPERIMENT: "no experiment decided",
}


def render_replay(report: ReplayReport) -> RenderableType:
    """Render a report for rich; it is readable at 80 columns, and without colour."""
    parts: list[RenderableType] = [_headline(report), Text(_scope(report))]
    if report.rows_targeting_unknown:
        unknown = _counted(report.rows_targeting_unknown, "row", "rows")
        parts.append(Text(f"Targeting not checkable: {unknown}, right in all else"))
    if report.overlap is not None:
        parts.append(Text(_overlap(report)))
    if report.numbered_twice:
        named = ", ".join(f"{plain(name)} {revision}" for name, revision in report.numbered_twice[:10])
        parts.append(Text(f"Two documents under one number, either of which may explain: {named}"))
    if report.rows_by_reason:
        parts += [Text(), _reasons(report)]
    if report.revisions:
        parts += [Text(), _revisions(report)]
    for one in report.mismatch_classes:
        parts += [Text(), Text(_class_words(one), style="bold red"), _examples(one)]
    return Group(*parts)


def _headline(report: ReplayReport) -> Text:
    if report.mismatches:
        found = _counted(report.mismatches, "mismatch", "mismatches")
        return Text(f"{found} in {report.rows:,} rows", style="bold red")
    return Text(f"Every assignment is explained: {report.rows:,} rows, no mismatch", style="bold green")


def _scope(report: ReplayReport) -> str:
    named = report.rows - report.rows_without_experiment
    revisions = _counted(len(report.revisions), "revision", "revisions")
    decisions = _counted(report.decisions, "decision", "decisions")
    return (
        f"{_counted(named, 'row names', 'rows name')} an experiment, by {revisions}; "
        f"{report.rows_without_experiment:,} none. {decisions} recomputed"
    )


def _counted(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def _overlap(report: ReplayReport) -> str:
    assert report.overlap is not None
    one, other = report.overlap.revisions
    name, overlap = plain(report.overlap.experiment), report.overlap.overlap_ms
    return f"Longest overlap of two revisions: {overlap:,.1f} ms, {name} {one} and {other}"


def _table(*columns: str, right: int = 0) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, name in enumerate(columns):
        numeric = number >= len(columns) - right
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    return table


def _reasons(report: ReplayReport) -> Table:
    table = _table("Explained as", "Rows", right=1)
    for reason, rows in report.rows_by_reason.items():
        table.add_row(_REASONS.get(Reason(reason), reason), f"{rows:,}")
    return table


def _revisions(report: ReplayReport) -> Table:
    table = _table("Experiment", "First", "Last", "Revision", "Epoch", "Rows", "Mismatches", right=4)
    shown = report.revisions
    if len(shown) > ROWS_MAX:
        shown = tuple(sorted(shown, key=lambda one: -one.mismatches))[:ROWS_MAX]
    for one in shown:
        table.add_row(
            Text(plain(one.experiment)), *_moments(one), *_numbers(one), style="red" if one.mismatches else ""
        )
    if len(report.revisions) > ROWS_MAX:
        table.add_row(f"and {len(report.revisions) - ROWS_MAX:,} more, in the JSON")
    return table


def _moments(one: RevisionRows) -> list[str]:
    return [_NONE if moment is None else _time(moment) for moment in (one.first, one.last)]


def _numbers(one: RevisionRows) -> list[str]:
    epochs = " or ".join(map(str, one.epochs)) or _NONE
    return [str(one.revision), epochs, f"{one.rows:,}", f"{one.mismatches:,}"]


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _class_words(one: MismatchClass) -> str:
    what = ("unit", "units") if one.name == Fault.TWO_ARMS else ("row", "rows")
    return f"{_FAULTS[Fault(one.name)]}: {_counted(one.count, *what)}"


def _examples(one: MismatchClass) -> Table:
    table = _table("Prediction", "Row", "Logged", "Recomputed")
    for example in one.examples:
        recomputed = "nothing" if example.recomputed is None else _words(example.recomputed)
        table.add_row(Text(plain(example.prediction_id)), str(example.row), Text(_said(example)), Text(recomputed))
    return table


def _said(example: Mismatch) -> str:
    named = f"{plain(example.experiment or 'no experiment')} {example.revision if example.revision is not None else ''}"
    unit = f"unit {plain(example.unit)}" if example.unit is not None else ""
    marks = "forced" if example.forced else "shadow" if example.shadow else ""
    return ", ".join(part for part in (named.strip(), unit, marks, _words(example.logged)) if part)


def _words(decision: Decision) -> str:
    parts = {
        "": decision.reason,
        "epoch": decision.epoch,
        "arm": decision.variant,
        "version": decision.version,
        "enrolment": decision.enrol_bucket,
        "split": decision.split_bucket,
        "probability": decision.probability,
    }
    said = [f"{name} {plain(str(value))}".strip() for name, value in parts.items() if value is not None]
    return ", ".join(said) or "nothing"
