"""The drift report as Prometheus text, for a textfile collector or a push gateway."""

from collections.abc import Iterator

import msgspec

from analysis.drift_report import ColumnDrift, DriftReport
from contracts.prediction_record import OUTPUT_PREFIX

Sample = tuple[dict[str, str], float]


def prometheus_text(report: DriftReport) -> str:
    """Write the report in the Prometheus text format 0.0.4.

    `sekisho_drift_score` has every statistic and share; the label `variant` is there only where a variant's rows were
    counted. `version` is empty where the rows of all versions were counted together.
    """
    scores = [sample for column in report.columns for sample in _scores(report, column)]
    limits = [
        (_labels(report, column) | {"statistic": "psi"}, column.statistics.psi_threshold)
        for column in report.columns
        if column.statistics
    ]
    verdicts = [
        (_labels(report, column), float(column.verdict == "drift")) for column in report.columns if column.statistics
    ]
    findings: list[Sample] = [
        (
            {"model": report.model, "version": one.version or report.version or "", "name": one.name, "kind": one.kind}
            | ({"variant": one.variant} if one.variant else {}),
            one.share,
        )
        for one in report.quality
    ]
    rows = [
        ({"model": report.model, "version": one.version, "variant": one.variant}, float(one.rows))
        for one in report.slices
    ]
    end = report.window.end or report.window.last_row
    return "".join(
        [
            *_family("sekisho_drift_score", "Distance of the window from the baseline, by statistic.", scores),
            *_family("sekisho_drift_threshold", "What the statistic must exceed to count as drift.", limits),
            *_family("sekisho_drift_detected", "1 where the column drifted, else 0.", verdicts),
            *_family("sekisho_drift_quality_share", "Share of bad rows, where it grew past its threshold.", findings),
            *_family("sekisho_drift_rows", "Rows in the window.", rows),
            *_family(
                "sekisho_drift_window_end_timestamp_seconds",
                "End of the window that was compared.",
                [({"model": report.model}, end.timestamp())],
            ),
        ]
    )


def _scores(report: DriftReport, column: ColumnDrift) -> Iterator[Sample]:
    values: dict[str, float | None] = {}
    if column.statistics:
        values = msgspec.structs.asdict(column.statistics)
        del values["psi_threshold"]
    if column.shares:
        values |= {f"{name}_share": share for name, share in msgspec.structs.asdict(column.shares).items()}
    for statistic, value in values.items():
        if value is not None:
            yield _labels(report, column) | {"statistic": statistic}, value


def _labels(report: DriftReport, column: ColumnDrift) -> dict[str, str]:
    feature = column.name if column.kind == "feature" else OUTPUT_PREFIX + column.name
    labels = {"model": report.model, "version": column.version or report.version or "", "feature": feature}
    return labels | ({"variant": column.variant} if column.variant else {})


def _family(name: str, help_text: str, samples: list[Sample]) -> Iterator[str]:
    if not samples:
        return
    yield f"# HELP {name} {help_text}\n# TYPE {name} gauge\n"
    for labels, value in samples:
        inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{name}{{{inside}}} {value!r}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
