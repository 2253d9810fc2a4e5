"""The results for a terminal: the sample ratio first, then every treatment's metrics."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from analysis.experiment_results.report import ExperimentResults, LatencyResult, MetricResult
from analysis.experiment_results.report_sentences import (
    covariate_sentence,
    coverage_sentence,
    disagreement_sentence,
    headline,
    intervals_sentence,
    left_out_sentence,
    plan_sentence,
    ratio_advice,
    ratio_sentence,
    stage_words,
    window_sentence,
)
from analysis.experiment_results.report_words import (
    VERDICTS,
    interval_words,
    mean_words,
    number_words,
    p_words,
    quantile_words,
)
from analysis.plain_text import plain

_STYLES = {
    "mismatch": "bold red",
    "worse": "bold red",
    "better": "bold green",
    "open": "bold yellow",
    "no_effect_found": "",
    "too_few_units": "yellow",
}


def _text(words: str = "", style: str = "") -> Text:
    return Text(plain(words), style=style)


def render_results(results: ExperimentResults) -> RenderableType:
    """Render results for rich; they are readable at 80 columns, and without colour."""
    top = headline(results)
    parts: list[RenderableType] = [
        _text(f"{results.experiment}: {top.title}", style=_STYLES[top.outcome]),
        _text(top.sentence),
        _text(f"{window_sentence(results.window)}. {coverage_sentence(results.window)}."),
        _text(f"{left_out_sentence(results)}."),
        _text(),
        _arms(results),
        _text(),
        *_ratio(results),
    ]
    for treatment in dict.fromkeys(metric.treatment for metric in results.metrics):
        mine = [metric for metric in results.metrics if metric.treatment == treatment]
        parts += [_text(), *_treatment(results, treatment, mine)]
    if results.disagreement:
        parts += [_text(), _text("Shadow pairs", style="bold")]
        parts += [_text(disagreement_sentence(one)) for one in results.disagreement]
    if results.notes:
        parts += [_text(), _text("Notes", style="bold"), *(_text(f"- {note}") for note in results.notes)]
    return Group(*parts)


def _new_table(*columns: str, first: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(first, overflow="fold", min_width=9)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _arms(results: ExperimentResults) -> Table:
    table = _new_table("Version", "Units", "Rows", "Not served", first="Arm")
    for arm in results.arms:
        share = f"{arm.rows_not_served / arm.rows:.2%}" if arm.rows else "-"
        # Text, not strings: the name of an arm is never markup.
        name = _text(arm.name + (" (control)" if arm.is_control and arm.name != "control" else ""))
        versions = _text(", ".join(arm.versions) or "-")
        table.add_row(name, versions, f"{arm.units:,}", f"{arm.rows:,}", share)
    return table


def _ratio(results: ExperimentResults) -> Iterator[RenderableType]:
    ratio = results.sample_ratio
    yield _text(ratio_sentence(results), style="bold red" if ratio.failed else "green")
    if not ratio.failed:
        return
    for check in ratio.checks:
        if not check.failed:
            continue
        counts = ", ".join(
            f"{arm.name} {units:,} for {expected:,.0f}"
            for arm, units, expected in zip(results.arms, check.units, check.expected, strict=True)
        )
        yield _text(f"  {stage_words(check)}: {counts} (p {p_words(check.p_value)})")
    yield _text(ratio_advice(results))


def _treatment(results: ExperimentResults, treatment: str, metrics: Sequence[MetricResult]) -> Iterator[RenderableType]:
    warning = " (the sample ratio fails)" if results.sample_ratio.failed else ""
    yield _text(f"{treatment} against {results.control}{warning}", style="bold red" if warning else "bold")
    table = _new_table("Control", "Effect", "Any time", "At the end", "Verdict", first="Metric")
    for metric in metrics:
        table.add_row(*_cells(metric))
    yield table
    yield _text(intervals_sentence(metrics), style="dim")
    for metric in metrics:
        if metric.role == "primary":
            told = (plan_sentence(results, metric), covariate_sentence(metric))
            yield from (_text(sentence) for sentence in told if sentence)
    latency = [one for one in results.latency if one.treatment == treatment]
    if latency:
        yield _text()
        yield _latency(latency)


def _cells(metric: MetricResult) -> list[Text]:
    style = _STYLES[metric.verdict]
    name = _text(metric.name, style="bold" if metric.role == "primary" else "")
    verdict = _text(VERDICTS[metric.verdict], style=style)
    if metric.absolute is None:
        return [name, _text(mean_words(metric.control_mean)), _text("-"), _text("-"), _text("-"), verdict]
    relative = metric.relative is not None
    effect = metric.absolute if metric.relative is None else metric.relative
    anytime = "-" if effect.anytime is None else interval_words(effect.anytime, relative=relative)
    return [
        name,
        _text(mean_words(metric.control_mean)),
        _text(number_words(effect.estimate, relative=relative)),
        _text(anytime),
        _text(interval_words(effect.fixed, relative=relative)),
        verdict,
    ]


def _latency(latency: Sequence[LatencyResult]) -> Table:
    table = _new_table("Control", "Treatment", "Difference", "Any time", "Verdict", first="Latency, ms")
    for one in latency:
        difference = one.difference_ms
        anytime = "-" if difference.anytime is None else interval_words(difference.anytime, relative=False)
        table.add_row(
            quantile_words(one.quantile),
            f"{one.control_ms:,.4g}",
            f"{one.treatment_ms:,.4g}",
            number_words(difference.estimate, relative=False),
            anytime,
            _text(VERDICTS[one.verdict], style=_STYLES[one.verdict]),
        )
    return table
