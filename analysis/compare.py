"""Compare a window of the prediction log with a baseline profile."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from analysis.bin_counts import BinCounts, Slice, comparable, count_bins, count_slices, counts_by_slice
from analysis.column_names import score_columns, status_columns
from analysis.drift_report import (
    Baseline,
    ColumnDrift,
    DriftReport,
    Outcome,
    QualityFinding,
    ServedSlice,
    Thresholds,
    Window,
    worst_first,
)
from analysis.errors import NoRows, ProfileMismatch, UnusableColumn
from analysis.prediction_log import LogPart, LogWindow, PredictionLog, open_log
from analysis.profile import STATUS_BINS, ColumnProfile, Profile
from analysis.quality import column_findings, view_findings
from analysis.verdict import adjust_for_many, baseline_sample, judge, window_sample
from contracts.prediction_record import FEATURE_PREFIX, OUTPUT_PREFIX, STATUS_PREFIX

CountsBySlice = dict[Slice, BinCounts]


def compare(
    profile: Profile,
    log_dir: Path,
    model: str,
    *,
    version: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    by_variant: bool = False,
    include_shadow: bool = False,
    thresholds: Thresholds | None = None,
    rows_served: int | None = None,
    score_profiles: Sequence[Profile] = (),
    threads: int | None = None,
) -> DriftReport:
    """Compare the rows that a model served in a window with a baseline.

    log_dir: the predictions root, or the directory that holds it as `predictions`.
    start, end: `start <= ts < end`, with a time zone; None leaves that side open.
    by_variant: judge the features of each served variant alone. Scores are always judged by version and variant.
    rows_served: how many rows the gateway served in the window, where it is known; the report then states its coverage.
    score_profiles: profiles of further versions, for their training scores.
    threads: of DuckDB; None takes one a core.
    Raises NoRows where the window is empty, ProfileMismatch for another model's profile, UnreadableFile for a damaged
    log.
    """
    for one in (profile, *score_profiles):
        if one.model != model:
            raise ProfileMismatch(model, one.model)
    thresholds = thresholds or Thresholds()
    window = LogWindow(model=model, version=version, start=start, end=end, include_shadow=include_shadow)
    with open_log(log_dir, window, threads=threads) as log:
        lines = _slice_lines(log)
        counted = _Counting(log, profile, score_profiles)
        features, feature_findings = _features(counted, by_variant, thresholds)
        scored = sorted({line["version"] for line in lines if line["rows"] > line["static_rows"]})
        predictions, prediction_findings = _predictions(counted, scored, thresholds)
        views = list(_views(counted, thresholds))
        unknown = counted.features_not_in_baseline()
    # All at once: the chance of a false alarm grows with everything that was looked at.
    judged = adjust_for_many([*predictions, *features], thresholds)
    findings = (*prediction_findings, *feature_findings, *views)
    return DriftReport(
        model=model,
        version=version,
        outcome=_outcome(judged, findings),
        baseline=Baseline(
            version=profile.version,
            rows=profile.rows,
            fingerprint=profile.fingerprint,
            start=profile.start,
            end=profile.end,
        ),
        window=_window(window, lines, rows_served),
        thresholds=thresholds,
        slices=_served_slices(lines),
        features=worst_first(column for column in judged if column.kind == "feature"),
        predictions=worst_first(column for column in judged if column.kind == "prediction"),
        quality=tuple(sorted(findings, key=lambda f: (f.share_baseline - f.share, f.name, f.kind))),
        features_not_in_baseline=unknown,
    )


class _Counting:
    """Counts columns of one log over the bins of one baseline."""

    def __init__(self, log: PredictionLog, profile: Profile, score_profiles: Sequence[Profile]) -> None:
        self._log = log
        self.profile = profile
        self._scores = {
            (score.version, score.column.name): score.column
            for one in reversed((profile, *score_profiles))
            for score in one.scores
        }

    def count(self, column: str, bins_of: ColumnProfile, version: str | None = None) -> CountsBySlice:
        """Count a column of the log in every part that has it. Raises UnusableColumn where its type does not fit."""
        found: CountsBySlice = {}
        for part in self._log.parts:
            if column in part.schema.names:
                for key, counts in self._count_part(part, column, bins_of, version).items():
                    found[key] = found[key] + counts if key in found else counts
        return found

    def score_profile(self, version: str, output: str) -> ColumnProfile | None:
        """Find the training scores of a version; those of no version in particular stand in."""
        return self._scores.get((version, output)) or self._scores.get(("", output))

    def outputs(self) -> list[str]:
        """Names of all outputs that the log has."""
        return sorted({name for part in self._log.parts for name in score_columns(part.schema.names)})

    def views(self) -> list[str]:
        """Names of all feature views that the log has."""
        return sorted({name for part in self._log.parts for name in status_columns(part.schema.names)})

    def features_not_in_baseline(self) -> tuple[str, ...]:
        """Names of features that were served and that the baseline does not know."""
        known = {column.name for column in self.profile.features}
        logged = {
            name.removeprefix(FEATURE_PREFIX)
            for part in self._log.parts
            for name in part.schema.names
            if name.startswith(FEATURE_PREFIX)
        }
        return tuple(sorted(logged - known))

    def _count_part(self, part: LogPart, column: str, bins_of: ColumnProfile, version: str | None) -> CountsBySlice:
        kind = part.schema.field(column).type
        if not comparable(bins_of.bins, kind):
            raise UnusableColumn(column, f"logged as {kind}, but {bins_of.dtype} in the baseline")
        rows = self._log.rows(part)
        if version is not None:
            rows = rows.filter(rows.version == version)
        return counts_by_slice(self._log.fetch(count_bins(rows, column, kind, bins_of.bins)), bins_of.bins.places)


def _slice_lines(log: PredictionLog) -> list[dict[str, Any]]:
    lines = [line for part in log.parts for line in log.fetch(count_slices(log.rows(part))).to_pylist()]
    if not lines:
        raise NoRows(log.root, str(log.window))
    return lines


def _served_slices(lines: Sequence[dict[str, Any]]) -> tuple[ServedSlice, ...]:
    rows: dict[tuple[str, str], int] = {}
    for line in lines:
        key = (line["version"], line["variant"])
        rows[key] = rows.get(key, 0) + line["rows"]
    return tuple(ServedSlice(*key, count) for key, count in sorted(rows.items()))


def _window(log_window: LogWindow, lines: Sequence[dict[str, Any]], rows_served: int | None) -> Window:
    weight = sum(line["weight"] for line in lines)
    return Window(
        start=log_window.start,
        end=log_window.end,
        first_row=min(line["first_row"] for line in lines),
        last_row=max(line["last_row"] for line in lines),
        rows=sum(line["rows"] for line in lines),
        weight=weight,
        static_rows=sum(line["static_rows"] for line in lines),
        rows_served=rows_served,
        coverage=weight / rows_served if rows_served else None,
        shadow_included=log_window.include_shadow,
    )


def _features(
    counting: _Counting, by_variant: bool, thresholds: Thresholds
) -> tuple[list[ColumnDrift], list[QualityFinding]]:
    columns: list[ColumnDrift] = []
    findings: list[QualityFinding] = []
    known = counting.profile.features
    for column in known:
        subject = ColumnDrift(
            kind="feature", name=column.name, verdict="not_logged", reason="the log has no such column"
        )
        try:
            found = counting.count(FEATURE_PREFIX + column.name, column)
        except UnusableColumn as error:
            columns.append(msgspec.structs.replace(subject, verdict="not_comparable", reason=error.problem))
            continue
        if not found:
            columns.append(subject)
        for variant, counts in _grouped(found, by_variant):
            slice_subject = msgspec.structs.replace(subject, variant=variant)
            sample = window_sample(counts)
            columns.append(judge(slice_subject, column, sample, thresholds))
            findings += column_findings(slice_subject, column, sample, thresholds)
    return columns, findings


def _predictions(
    counting: _Counting, versions: Sequence[str], thresholds: Thresholds
) -> tuple[list[ColumnDrift], list[QualityFinding]]:
    columns: list[ColumnDrift] = []
    findings: list[QualityFinding] = []
    for output in counting.outputs():
        for version in versions:
            subject = ColumnDrift(
                kind="prediction",
                name=output,
                version=version,
                verdict="no_baseline",
                reason=f"the baseline holds no scores of version {version}",
            )
            column = counting.score_profile(version, output)
            if column is None:
                columns.append(subject)
                continue
            try:
                found = counting.count(OUTPUT_PREFIX + output, column, version)
            except UnusableColumn as error:
                columns.append(msgspec.structs.replace(subject, verdict="not_comparable", reason=error.problem))
                continue
            for key, counts in sorted(found.items(), key=lambda item: item[0].variant):
                slice_subject = msgspec.structs.replace(subject, variant=key.variant)
                sample = window_sample(counts)
                columns.append(judge(slice_subject, column, sample, thresholds))
                findings += column_findings(slice_subject, column, sample, thresholds)
    return columns, findings


def _views(counting: _Counting, thresholds: Thresholds) -> Iterator[QualityFinding]:
    baselines = {column.name: column for column in counting.profile.view_statuses}
    for view in counting.views():
        status = ColumnProfile(name=view, dtype="string", rows=0, nulls=0, bins=STATUS_BINS, counts=())
        found = counting.count(STATUS_PREFIX + view, status)
        for _, counts in _grouped(found, by_variant=False):
            reference = baseline_sample(baselines[view]) if view in baselines else None
            yield from view_findings(view, reference, window_sample(counts), thresholds)


def _grouped(found: CountsBySlice, by_variant: bool) -> list[tuple[str | None, BinCounts]]:
    groups: dict[str | None, BinCounts] = {}
    for key, counts in found.items():
        group = key.variant if by_variant else None
        groups[group] = groups[group] + counts if group in groups else counts
    return sorted(groups.items(), key=lambda item: item[0] or "")


def _outcome(columns: Sequence[ColumnDrift], findings: Sequence[QualityFinding]) -> Outcome:
    if findings or any(column.verdict == "drift" for column in columns):
        return "drift"
    return "ok" if any(column.statistics for column in columns) else "undecided"
