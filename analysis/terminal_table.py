"""The drift report for a terminal: the verdict in a line, findings, and a table of columns, worst first."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from analysis.drift_report import ColumnDrift, DriftReport, QualityFinding
from analysis.report_words import column_title, coverage_words, finding_title, headline, verdict_words, window_words

ROWS_MAX = 200
"""More rows than a person reads; JSON and HTML hold the rest."""

_STYLES = {"drift": "bold red", "ok": "green"}


def render_table(report: DriftReport) -> RenderableType:
    """Render a report for rich; it is readable at 80 columns, and without colour."""
    parts: list[RenderableType] = [
        Text(headline(report), style=_STYLES.get(report.outcome, "bold yellow")),
        Text(f"{window_words(report.window)}. {coverage_words(report.window)}"),
        Text(f"Baseline: {report.baseline.rows:,} rows" + _of_version(report.baseline.version)),
    ]
    if report.quality:
        parts += [Text(), Text("Data quality", style="bold"), *map(_finding_line, report.quality[:ROWS_MAX])]
    if report.columns:
        parts += [Text(), _table(report)]
    hidden = len(report.columns) - ROWS_MAX
    if hidden > 0:
        parts.append(Text(f"{hidden} further columns are in the JSON and HTML reports."))
    if report.features_not_in_baseline:
        parts.append(Text(f"Served, but not in the baseline: {', '.join(report.features_not_in_baseline[:20])}"))
    return Group(*parts)


def _of_version(version: str) -> str:
    return f" of version {version}" if version else ""


def _finding_line(finding: QualityFinding) -> Text:
    return Text(f"  {finding_title(finding)}: {finding.reason}")


def _table(report: DriftReport) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("Column", overflow="fold", ratio=1, min_width=18)
    table.add_column("Verdict", no_wrap=True)
    for name in ("PSI", "Limit", "JS", "KS", "Nulls"):
        table.add_column(name, justify="right", no_wrap=True)
    for column in report.columns[:ROWS_MAX]:
        verdict = Text(verdict_words(column.verdict), style=_STYLES.get(column.verdict, "yellow"))
        # Text, not strings: the name of a feature is never markup.
        table.add_row(Text(column_title(column)), verdict, *_numbers(column))
    return table


def _numbers(column: ColumnDrift) -> list[str]:
    found = column.statistics
    nulls = f"{column.shares.null:.1%}" if column.shares else "-"
    if found is None:
        return ["-", "-", "-", "-", nulls]
    ks = "-" if found.ks is None else f"{found.ks:.3f}"
    return [f"{found.psi:.3f}", f"{found.psi_threshold:.3f}", f"{found.js_distance:.3f}", ks, nulls]
