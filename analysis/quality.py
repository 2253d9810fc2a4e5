"""Data quality: shares of bad rows that grew.

Kept apart from drift, because the remedy is another: mend the data, not the model.
"""

from collections.abc import Iterator
from typing import Final

from analysis.drift_report import ColumnDrift, FindingKind, QualityFinding, Thresholds
from analysis.noise_floor import out_of_range_noise, share_increase_noise
from analysis.profile import ColumnProfile, NumericBins
from analysis.verdict import Sample, baseline_sample
from contracts.prediction_record import OUTPUT_PREFIX, STATUSES

_KIND_BY_STATUS: Final[dict[str, FindingKind]] = {"STALE": "view_stale", "NULL": "view_null", "MISSING": "view_missing"}
_WORDS: Final[dict[FindingKind, str]] = {
    "nulls": "of rows have no value",
    "out_of_range": "of values lie outside the baseline's range",
    "new_categories": "of values are categories that the baseline did not name",
    "view_stale": "of rows were served with a stale row of this view",
    "view_null": "of rows were served with an empty row of this view",
    "view_missing": "of rows found no row of this view",
}


def column_findings(
    subject: ColumnDrift, column: ColumnProfile, current: Sample, thresholds: Thresholds
) -> Iterator[QualityFinding]:
    """Find what is worse in a column than in its profile: nulls, values out of range, new categories."""
    reference = baseline_sample(column)
    name = subject.name if subject.kind == "feature" else OUTPUT_PREFIX + subject.name

    def finding(kind: FindingKind, before: float, now: float, noise: float) -> Iterator[QualityFinding]:
        yield from _finding(kind, name, before, now, noise, thresholds, subject)

    if reference.size and current.size >= thresholds.rows_min:
        before, now = reference.nulls / reference.size, current.nulls / current.size
        yield from finding("nulls", before, now, share_increase_noise(before, reference.size, now, current.size))
    if not reference.valued or current.valued < thresholds.rows_min:
        return
    if isinstance(column.bins, NumericBins):
        before, now = _outside(reference), _outside(current)
        yield from finding("out_of_range", before, now, out_of_range_noise(reference.valued, current.valued))
    else:
        before, now = reference.counts[-1] / reference.valued, current.counts[-1] / current.valued
        noise = share_increase_noise(before, reference.valued, now, current.valued)
        yield from finding("new_categories", before, now, noise)


def view_findings(
    view: str, reference: Sample | None, current: Sample, thresholds: Thresholds
) -> Iterator[QualityFinding]:
    """Find what is worse in how a view's rows were found.

    Counts are over STATUS_BINS. Without a reference, every row is taken to have been present.
    """
    if current.valued < thresholds.rows_min:
        return
    for place, status in enumerate(STATUSES):
        if status not in _KIND_BY_STATUS:
            continue
        now = float(current.counts[place]) / current.valued
        before, noise = 0.0, 0.0
        if reference is not None and reference.valued:
            before = float(reference.counts[place]) / reference.valued
            noise = share_increase_noise(before, reference.valued, now, current.valued)
        yield from _finding(_KIND_BY_STATUS[status], view, before, now, noise, thresholds, None)


def _finding(
    kind: FindingKind,
    name: str,
    before: float,
    now: float,
    noise: float,
    thresholds: Thresholds,
    subject: ColumnDrift | None,
) -> Iterator[QualityFinding]:
    threshold = max(thresholds.share, noise)
    if now - before > threshold:
        yield QualityFinding(
            kind=kind,
            name=name,
            version=subject.version if subject else None,
            variant=subject.variant if subject else None,
            share_baseline=float(before),
            share=float(now),
            threshold=float(threshold),
            reason=f"{now:.1%} {_WORDS[kind]}; {before:.1%} in the baseline",
        )


def _outside(sample: Sample) -> float:
    return float(sample.counts[0] + sample.counts[-1]) / sample.valued
