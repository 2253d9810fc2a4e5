"""The first mismatches of each class, as rows that an auditor can look up."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from analysis.assignment_replay.logged_assignment import LoggedAssignment
from analysis.assignment_replay.recomputation import Fault
from analysis.assignment_replay.replay_log import ReplayLog
from analysis.assignment_replay.replay_report import Decision, Mismatch, MismatchClass
from analysis.assignment_replay.rows_together import ShadowPair
from analysis.assignment_replay.scans import Scan
from analysis.experiment_results.experiment_log import moment
from experiments import Assignment

EXAMPLES_MAX: Final = 10
"""Of one class."""


class _Example(NamedTuple):
    """A decision that is not explained. keys: by which its rows are found in the scan."""

    scan: Scan
    keys: tuple[Any, ...]
    logged: LoggedAssignment
    recomputed: Assignment | LoggedAssignment | None


class Examples:
    """Keeps the first decisions of each class; their rows are looked up once, at the end."""

    def __init__(self) -> None:
        self._decisions: defaultdict[Fault, list[_Example]] = defaultdict(list)
        self._pairs: list[ShadowPair] = []

    def add(
        self,
        fault: Fault,
        scan: Scan,
        keys: tuple[Any, ...],
        logged: LoggedAssignment,
        recomputed: Assignment | LoggedAssignment | None,
    ) -> None:
        """Keep one decision, unless there are enough of its class."""
        kept = self._decisions[fault]
        if len(kept) < EXAMPLES_MAX:
            kept.append(_Example(scan, keys, logged, recomputed))

    def add_row(self, pair: ShadowPair) -> None:
        """Keep one shadow's row, unless there are enough."""
        if len(self._pairs) < EXAMPLES_MAX:
            self._pairs.append(pair)

    def classes(self, log: ReplayLog, counts: Mapping[Fault, int]) -> tuple[MismatchClass, ...]:
        """Look the rows up, and give the classes that there are."""
        by_fault: defaultdict[Fault, list[Mismatch]] = defaultdict(list)
        for fault, example, row in self._rows(log):
            if len(by_fault[fault]) < EXAMPLES_MAX:
                by_fault[fault].append(_mismatch(row, example.logged, example.recomputed))
        for pair in self._pairs:
            row = {"prediction_id": pair.prediction_id, "row": pair.row, "at_us": pair.at_us}
            by_fault[Fault.SHADOW_PAIR].append(_mismatch(row, pair.shadow, pair.answered))
        return tuple(
            MismatchClass(name=fault, count=counts[fault], examples=tuple(by_fault[fault]))
            for fault in Fault
            if counts.get(fault)
        )

    def _rows(self, log: ReplayLog) -> list[tuple[Fault, _Example, dict[str, Any]]]:
        by_scan: dict[int, list[tuple[Fault, _Example]]] = {}
        for fault, kept in self._decisions.items():
            for example in kept:
                by_scan.setdefault(id(example.scan), []).append((fault, example))
        found = []
        for of_scan in by_scan.values():
            scan = of_scan[0][1].scan
            rows = scan.rows_of(log, [example.keys for _, example in of_scan], EXAMPLES_MAX)
            found += [(*one, row) for one, own in zip(of_scan, rows, strict=True) for row in own]
        return found


def _mismatch(
    row: Mapping[str, Any], logged: LoggedAssignment, recomputed: Assignment | LoggedAssignment | None
) -> Mismatch:
    answer = logged.answer
    return Mismatch(
        prediction_id=row["prediction_id"],
        row=row["row"],
        at=moment(row["at_us"]),
        model=answer.model,
        experiment=answer.experiment,
        revision=answer.revision,
        unit=logged.unit,
        forced=answer.forced,
        shadow=answer.shadow,
        variant_served=answer.served,
        logged=_logged(logged),
        recomputed=_logged(recomputed) if isinstance(recomputed, LoggedAssignment) else _recomputed(recomputed),
    )


def _logged(logged: LoggedAssignment) -> Decision:
    return Decision(
        epoch=logged.answer.epoch,
        variant=logged.answer.arm,
        version=logged.answer.version,
        enrol_bucket=logged.enrol_bucket,
        split_bucket=logged.split_bucket,
        probability=logged.answer.probability,
    )


def _recomputed(decision: Assignment | None) -> Decision | None:
    if decision is None:
        return None
    variant, experiment = decision.variant, decision.experiment
    return Decision(
        reason=decision.reason,
        epoch=experiment.epoch if experiment is not None else None,
        variant=variant.name if variant is not None else None,
        version=variant.version if variant is not None else None,
        enrol_bucket=decision.enrol_bucket,
        split_bucket=decision.split_bucket,
        probability=decision.probability,
    )
