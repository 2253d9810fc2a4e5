"""The sentences that the terminal and the HTML report share."""

from datetime import UTC, datetime
from typing import Final

from analysis.drift_report import ColumnDrift, DriftReport, QualityFinding, ServedSlice, Statistics, Verdict, Window
from contracts.prediction_record import OUTPUT_PREFIX

_VERDICTS: Final[dict[Verdict, str]] = {
    "drift": "drift",
    "ok": "ok",
    "too_few_rows": "too few rows",
    "no_baseline": "no baseline",
    "not_logged": "not logged",
    "not_comparable": "other type",
}

STATISTIC_FORMATS: Final = {
    "PSI": ".3f",
    "Limit": ".3f",
    "JS": ".3f",
    "KS": ".3f",
    "W/SD": ".3f",
    "Chi²": ",.1f",
    "p": ".2g",
}
"""The statistics by their short names, in the order shown, and how each is written."""

EXPLANATIONS: Final = {
    "PSI": "Population stability index: how far the shares of all bins moved, in nats. 0 is equal, 0.1 a shift worth a "
    "look, 0.25 a large one.",
    "Limit": "What PSI must exceed for drift: the larger of the one set and what chance does with so few rows.",
    "JS": "Jensen-Shannon distance in base 2, from 0 (equal) to 1 (nothing in common).",
    "KS": "Kolmogorov-Smirnov: the largest difference of the cumulative shares at any bin's edge. Numbers only.",
    "W/SD": "Wasserstein distance: how far values moved on average, in standard deviations of the baseline. Numbers "
    "only.",
    "Chi²": "Pearson's chi-square statistic of homogeneity. Categories only.",
    "p": "Given under 1,000 rows: the chance of such a difference without a change, adjusted for the number of columns "
    "(Benjamini-Hochberg). Drift then also needs it to be small.",
    "Nulls": "Share of rows without a value; NaN counts as none.",
    "Out of range": "Share of values below the least or above the greatest of the baseline.",
    "New categories": "Share of values that the baseline did not name.",
}


def verdict_words(verdict: Verdict) -> str:
    """Say a verdict in words."""
    return _VERDICTS[verdict]


def model_title(report: DriftReport) -> str:
    """Name the model, with its version where only that was looked at."""
    return report.model if report.version is None else f"{report.model}@{report.version}"


def headline(report: DriftReport) -> str:
    """Say the outcome in one line."""
    title = model_title(report)
    if report.outcome == "undecided":
        return f"{title}: undecided, no column could be compared"
    compared = sum(1 for column in report.columns if column.statistics)
    if report.outcome == "ok":
        return f"{title}: no drift in {_counted(compared, 'column')}"
    features = sum(1 for column in report.features if column.verdict == "drift")
    predictions = sum(1 for column in report.predictions if column.verdict == "drift")
    parts = [
        _counted(predictions, "drifted score") if predictions else "",
        _counted(features, "drifted feature") if features else "",
        _counted(len(report.quality), "data quality finding") if report.quality else "",
    ]
    return f"{title}: {', '.join(filter(None, parts))} ({_counted(compared, 'column')} compared)"


def slice_words(served: ServedSlice) -> str:
    """Say how many rows a version served under a variant."""
    variant = f" ({served.variant})" if served.variant else ""
    return f"{served.version or 'none'}{variant}: {served.rows:,}"


def window_words(window: Window) -> str:
    """Say how many rows were looked at, and when they were served."""
    return f"{window.rows:,} rows from {_time(window.first_row)} to {_time(window.last_row)}"


def coverage_words(window: Window) -> str:
    """Say which share of the served rows the report stands for."""
    if window.coverage is None:
        return "Share of served rows that is missing: unknown"
    missing = max(0.0, 1 - window.coverage)
    return f"Missing: {missing:.2%} of {window.rows_served:,} served rows"


def statistic_values(statistics: Statistics | None) -> dict[str, float]:
    """Give the statistics that there are by their short names, in the order of STATISTIC_FORMATS."""
    if statistics is None:
        return {}
    values = (
        statistics.psi,
        statistics.psi_threshold,
        statistics.js_distance,
        statistics.ks,
        statistics.wasserstein,
        statistics.chi_square,
        statistics.p_value_adjusted,
    )
    return {name: value for name, value in zip(STATISTIC_FORMATS, values, strict=True) if value is not None}


def column_title(column: ColumnDrift) -> str:
    """Name a column, with the slice whose rows were counted."""
    name = column.name if column.kind == "feature" else OUTPUT_PREFIX + column.name
    return name + _slice_words(column.version, column.variant)


def finding_title(finding: QualityFinding) -> str:
    """Name what a finding is about."""
    return finding.name + _slice_words(finding.version, finding.variant)


def _slice_words(version: str | None, variant: str | None) -> str:
    parts = [f"@{version}"] if version is not None else []
    if variant is not None:
        parts.append(f" [{variant or 'no variant'}]")
    return "".join(parts)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
