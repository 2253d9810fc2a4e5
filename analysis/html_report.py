"""The drift report as one HTML file that needs no network and no library, in light or dark, wide or narrow."""

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path

from analysis.drift_report import ColumnDrift, DriftReport, QualityFinding
from analysis.histogram_svg import histogram_svg
from analysis.report_words import (
    EXPLANATIONS,
    STATISTIC_FORMATS,
    column_title,
    coverage_words,
    finding_title,
    headline,
    model_title,
    slice_words,
    statistic_values,
    verdict_words,
    window_words,
)
from analysis.whole_file import write_whole

SECTIONS_MAX = 200
"""Columns drawn with a histogram, worst first: a page of thousands would not open on a phone."""

WORST_SHOWN = 5

_OUTCOME_WORDS = {"drift": "Drift", "ok": "No drift", "undecided": "Undecided"}


def write_html(report: DriftReport, path: Path) -> None:
    """Write the page, whole or not at all. Raises OSError."""
    write_whole(path, render_html(report).encode())


def render_html(report: DriftReport) -> str:
    """Render the page as text. Every name and category in it is escaped."""
    columns = report.columns
    drawn = [column for column in columns if column.histogram][:SECTIONS_MAX]
    anchors = {id(column): f"column-{number}" for number, column in enumerate(drawn, start=1)}
    sections = [
        _header(report),
        _worst(columns, anchors),
        _findings(report.quality),
        _table(columns, anchors),
        _drawings(drawn, anchors, len([column for column in columns if column.histogram])),
        _explanations(),
        _footer(report),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(_OUTCOME_WORDS[report.outcome])}: {escape(model_title(report))}</title>\n"
        f"<style>\n{_asset('html_report.css')}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(filter(None, sections))
        + f"\n</main>\n<script>\n{_asset('html_report.js')}</script>\n</body>\n</html>\n"
    )


def _asset(name: str) -> str:
    return resources.files("analysis").joinpath(name).read_text(encoding="utf-8")


def _header(report: DriftReport) -> str:
    _, _, sentence = headline(report).partition(": ")
    versions = ", ".join(slice_words(one) for one in report.slices)
    baseline = f"{report.baseline.rows:,} rows"
    if report.baseline.version:
        baseline += f" of version {report.baseline.version}"
    facts = [
        ("Window", window_words(report.window)),
        ("Rows by version", versions),
        ("Baseline", baseline),
        ("Coverage", coverage_words(report.window)),
    ]
    if report.window.static_rows:
        facts.append(("Not scored by a model", f"{report.window.static_rows:,} rows got the static score"))
    listed = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts)
    return (
        f'<header>\n<p class="eyebrow">Drift report</p>\n<h1>{escape(model_title(report))}</h1>\n'
        f'<p class="verdict {report.outcome}"><strong>{_OUTCOME_WORDS[report.outcome]}</strong> '
        f'<span>{escape(sentence)}</span></p>\n<dl class="facts">{listed}</dl>\n</header>'
    )


def _worst(columns: Sequence[ColumnDrift], anchors: dict[int, str]) -> str:
    compared = [column for column in columns if column.statistics][:WORST_SHOWN]
    if not compared:
        return ""
    rows = "".join(f"<li>{_link(column, anchors)}{_meter(column)}</li>" for column in compared)
    return f'<section>\n<h2>Farthest from the baseline</h2>\n<ol class="worst">{rows}</ol>\n</section>'


def _meter(column: ColumnDrift) -> str:
    assert column.statistics is not None
    ratio = column.statistics.psi / column.statistics.psi_threshold
    # The limit stands at 40 % of the track, so that both "just under" and "several times over" can be seen.
    width = min(100.0, 40 * ratio)
    return (
        '<span class="meter" title="PSI as a share of its limit">'
        f'<i class="{column.verdict}" style="width:{width:.1f}%"></i></span>'
        f'<span class="number">PSI {column.statistics.psi:.3f}</span>'
    )


def _findings(findings: Iterable[QualityFinding]) -> str:
    rows = "".join(f"<li><strong>{escape(finding_title(one))}</strong> {escape(one.reason)}</li>" for one in findings)
    return f'<section>\n<h2>Data quality</h2>\n<ul class="findings">{rows}</ul>\n</section>' if rows else ""


def _table(columns: Sequence[ColumnDrift], anchors: dict[int, str]) -> str:
    names = ("Column", "Verdict", *STATISTIC_FORMATS, "Nulls", "Rows")
    head = "".join(f'<th scope="col" aria-sort="none"><button type="button">{name}</button></th>' for name in names)
    body = "\n".join(_table_row(column, anchors) for column in columns)
    return (
        '<section>\n<h2>All columns</h2>\n<div class="scroll" tabindex="0" role="region" aria-label="All columns">'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>\n</section>"
    )


def _table_row(column: ColumnDrift, anchors: dict[int, str]) -> str:
    values = statistic_values(column.statistics)
    cells = [_number_cell(values.get(name), form) for name, form in STATISTIC_FORMATS.items()]
    cells += [_number_cell(column.shares.null if column.shares else None, ".1%"), _number_cell(column.rows, ",")]
    return f'<tr><th scope="row">{_link(column, anchors)}</th><td>{_badge(column)}</td>{"".join(cells)}</tr>'


def _number_cell(value: float | None, form: str) -> str:
    if value is None:
        return '<td class="number">-</td>'
    return f'<td class="number" data-value="{value!r}">{value:{form}}</td>'


def _drawings(columns: Sequence[ColumnDrift], anchors: dict[int, str], comparable: int) -> str:
    if not columns:
        return ""
    hidden = comparable - len(columns)
    more = f"<p>{hidden:,} further columns are in the JSON report.</p>" if hidden else ""
    cards = "\n".join(_card(column, anchors[id(column)]) for column in columns)
    return (
        '<section>\n<h2>Distributions</h2>\n<p class="legend"><span class="before"></span> baseline '
        f'<span class="now"></span> now <em>share of the rows that have a value, by bin of the baseline</em></p>\n'
        f'<div class="cards">\n{cards}\n</div>\n{more}</section>'
    )


def _card(column: ColumnDrift, anchor: str) -> str:
    title = column_title(column)
    values = statistic_values(column.statistics)
    shown = [(name, f"{value:{STATISTIC_FORMATS[name]}}") for name, value in values.items()]
    if column.shares:
        shares = zip(
            ("Nulls", "Out of range", "New categories"),
            (column.shares.null, column.shares.out_of_range, column.shares.new_category),
            strict=True,
        )
        shown += [(name, f"{share:.1%}") for name, share in shares if share is not None]
    listed = "".join(f"<div><dt>{name}</dt><dd>{text}</dd></div>" for name, text in shown)
    drawing = histogram_svg(
        column.histogram, categorical="KS" not in values, title=f"{title}: share of rows by bin, baseline and now"
    )
    return (
        f'<article class="card {column.verdict}" id="{anchor}">\n<h3>{escape(title)}</h3> {_badge(column)}\n'
        f'<p class="reason">{escape(column.reason)}</p>\n{drawing}\n<dl class="values">{listed}</dl>\n</article>'
    )


def _explanations() -> str:
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in EXPLANATIONS.items())
    return f'<section>\n<h2>How to read this</h2>\n<dl class="explained">{listed}</dl>\n</section>'


def _footer(report: DriftReport) -> str:
    parts = [f"Baseline fingerprint {report.baseline.fingerprint}."]
    if report.features_not_in_baseline:
        parts.append(f"Served, but not in the baseline: {', '.join(report.features_not_in_baseline)}.")
    parts.append("Shadow rows are " + ("included." if report.window.shadow_included else "left out."))
    return f"<footer><p>{escape(' '.join(parts))}</p></footer>"


def _link(column: ColumnDrift, anchors: dict[int, str]) -> str:
    title = escape(column_title(column))
    anchor = anchors.get(id(column))
    return f'<a href="#{anchor}">{title}</a>' if anchor else f'<span title="{escape(column.reason)}">{title}</span>'


def _badge(column: ColumnDrift) -> str:
    return f'<span class="badge {column.verdict}">{verdict_words(column.verdict)}</span>'
