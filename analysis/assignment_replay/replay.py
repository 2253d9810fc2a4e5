"""Recompute every logged assignment from the configuration history, with the code that serves."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any, Final

from analysis.assignment_replay.history import History, Key, read_history
from analysis.assignment_replay.logged_assignment import ANSWER_FACTS, FACTS, Answer, LoggedAssignment
from analysis.assignment_replay.mismatches import Examples
from analysis.assignment_replay.recomputation import Fault, Recomputation
from analysis.assignment_replay.replay_log import ReplayLog, open_replay_log
from analysis.assignment_replay.replay_report import ReplayReport, RevisionOverlap, RevisionRows
from analysis.assignment_replay.revision_spans import RevisionSpan, joined, largest_overlap, revision_spans
from analysis.assignment_replay.rows_together import shadows_that_differ, units_in_two_arms
from analysis.assignment_replay.scans import Scan, scans
from analysis.assignment_replay.where_attributes import LoggedAttributes
from analysis.errors import NoRows
from analysis.experiment_results.experiment_log import moment

ANSWERS_REMEMBERED_MAX: Final = 65_536
"""Few are different in a log as it should be; one in which all are must not fill the memory."""

US_PER_MS: Final = 1_000

Progress = Callable[[int, int], None]
"""Told of rows done, and of all."""


@dataclass(slots=True)
class Tally:
    """What was counted so far."""

    decisions: int = 0
    rows_done: int = 0
    rows_targeting_unknown: int = 0
    by_reason: Counter[str] = field(default_factory=Counter)
    by_fault: Counter[Fault] = field(default_factory=Counter)
    wrong_by_revision: Counter[Key] = field(default_factory=Counter)
    examples: Examples = field(default_factory=Examples)


def replay(
    log_dir: Path,
    history: Sequence[Path],
    *,
    model: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    threads: int | None = None,
    progress: Progress = lambda _done, _all: None,
) -> ReplayReport:
    """Replay the rows of `start <= ts < end`, of one model or of all, shadows too.

    history: files as `read_history` reads them. threads: of DuckDB; None takes one a core.
    Raises DamagedHistory, NoRows where there are none, UnreadableFile for a damaged log.
    """
    with open_replay_log(log_dir, model=model, start=start, end=end, threads=threads) as log:
        by_part = revision_spans(log)
        each = tuple(chain.from_iterable(by_part))
        rows = sum(span.rows for span in each)
        if not rows:
            raise NoRows(log.root, log.scope)
        spans = joined(each)
        read = read_history(history, spans.keys())
        recomputation = Recomputation(read)
        tally = Tally()
        for scan in scans(log, recomputation, by_part):
            _recompute(log, scan, recomputation, tally, lambda: progress(tally.rows_done, rows))
        _look_at_units(log, recomputation, tally)
        if any(span.shadows for span in each):
            _look_at_shadows(log, recomputation, tally)
        outside = sum(span.rows for span in each if span.experiment is None)
        return ReplayReport(
            log=str(log.root),
            model=model,
            start=start,
            end=end,
            history=tuple(map(str, history)),
            rows=rows,
            rows_without_experiment=outside,
            decisions=tally.decisions,
            rows_by_reason=dict(sorted(tally.by_reason.items(), key=lambda item: (-item[1], item[0]))),
            rows_targeting_unknown=tally.rows_targeting_unknown,
            revisions=tuple(_revision_rows(key, span, read, tally) for key, span in spans.items()),
            numbered_twice=read.numbered_twice,
            mismatches=tally.by_fault.total(),
            mismatch_classes=tally.examples.classes(log, tally.by_fault),
            overlap=_overlap(spans),
        )


def _recompute(
    log: ReplayLog, scan: Scan, recomputation: Recomputation, tally: Tally, told: Callable[[], None]
) -> None:
    answers: dict[tuple[Any, ...], Answer] = {}
    attributes: LoggedAttributes | None = None
    columns = scan.columns or ()
    names = [column.name for column in columns]
    facts = len(FACTS)
    for batch in log.tuples(scan.decisions()):
        for line in batch:
            said = line[:ANSWER_FACTS]
            answer = answers.get(said)
            if answer is None:
                if len(answers) == ANSWERS_REMEMBERED_MAX:
                    answers.clear()
                answer = answers[said] = Answer._make(said)
            logged = LoggedAssignment(answer, *line[ANSWER_FACTS:facts])
            if scan.columns is not None:
                *values, of_several, of_tensors, _ = line[facts:]
                given = {name: value for name, value in zip(names, values, strict=True) if value is not None}
                attributes = LoggedAttributes(given, of_several, of_tensors)
            verdict = recomputation.judge(logged, attributes, columns)
            rows = line[-1]
            tally.rows_done += rows
            if verdict.fault is None:
                tally.by_reason[verdict.reason] += rows
                if not verdict.is_targeting_known:
                    tally.rows_targeting_unknown += rows
                continue
            tally.by_fault[verdict.fault] += rows
            tally.examples.add(verdict.fault, scan, line[:-1], logged, verdict.recomputed)
            if answer.experiment is not None and answer.revision is not None:
                tally.wrong_by_revision[answer.experiment, answer.revision] += rows
        tally.decisions += len(batch)
        told()


def _look_at_units(log: ReplayLog, recomputation: Recomputation, tally: Tally) -> None:
    drawn, found = units_in_two_arms(log, recomputation)
    for two in found:
        tally.by_fault[Fault.TWO_ARMS] += 1
        tally.examples.add(Fault.TWO_ARMS, drawn, (*two.other.answer, *two.other[1:]), two.other, two.one)


def _look_at_shadows(log: ReplayLog, recomputation: Recomputation, tally: Tally) -> None:
    for pair in shadows_that_differ(log, recomputation):
        tally.by_fault[Fault.SHADOW_PAIR] += 1
        tally.examples.add_row(pair)


def _revision_rows(key: Key, span: RevisionSpan, history: History, tally: Tally) -> RevisionRows:
    return RevisionRows(
        experiment=key[0],
        revision=key[1],
        epochs=tuple(experiment.epoch for experiment in history.of(*key)),
        rows=span.rows,
        mismatches=tally.wrong_by_revision[key],
        first=None if span.first_us is None else moment(span.first_us),
        last=None if span.last_us is None else moment(span.last_us),
    )


def _overlap(spans: dict[Key, RevisionSpan]) -> RevisionOverlap | None:
    found = largest_overlap(spans)
    if found is None:
        return None
    return RevisionOverlap(
        experiment=found.experiment, revisions=found.revisions, overlap_ms=found.overlap_us / US_PER_MS
    )
