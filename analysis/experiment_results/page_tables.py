"""The results page's tables: arms, epochs, latency, and every figure of every metric."""

from collections.abc import Sequence
from html import escape

from analysis.experiment_results.charts import ARM_COLOURS
from analysis.experiment_results.report import ExperimentResults, MetricResult
from analysis.experiment_results.report_words import (
    VERDICTS,
    interval_words,
    mean_words,
    number_words,
    p_words,
    percent,
    quantile_words,
    time_words,
)


def arms_table(results: ExperimentResults) -> str:
    """List the arms with their units, rows and fallbacks."""
    rows = []
    for index, arm in enumerate(results.arms):
        share = f"{arm.rows_not_served / arm.rows:.2%}" if arm.rows else "-"
        swatch = f'<span class="swatch swatch-{index % ARM_COLOURS}"></span>'
        name = f"{swatch}{escape(arm.name)}{' (control)' if arm.is_control and arm.name != 'control' else ''}"
        rows.append((name, escape(", ".join(arm.versions) or "-"), f"{arm.units:,}", f"{arm.rows:,}", share))
    return _table("Arms", ("Arm", "Version", "Units", "Rows", "Not served by its version"), rows)


def epochs_section(results: ExperimentResults) -> str:
    """List the epochs, with the split of each and the primary effect within it; nothing where there is one alone."""
    if len(results.epochs) < 2:
        return ""
    rows = []
    for epoch in results.epochs:
        split = ", ".join(f"{arm.arm} {arm.probability:.1%} ({arm.units:,})" for arm in epoch.arms)
        effects = [
            f"{metric.treatment} {number_words(one.difference, relative=False)} "
            f"({interval_words(one.fixed, relative=False)}), weight {one.weight:.0%}"
            for metric in results.of("primary")
            for one in metric.epochs
            if one.epoch == epoch.epoch
        ]
        times = f"{time_words(epoch.begins)} to {time_words(epoch.ends)}"
        rows.append((str(epoch.epoch), times, escape(split), escape("; ".join(effects) or "-")))
    heads = ("Epoch", "Time", "Split and units", "Primary difference, at the end")
    return f"<section>\n<h2>Epochs</h2>\n{_table('Epochs', heads, rows)}\n</section>"


def latency_section(results: ExperimentResults) -> str:
    """List the quantiles of the latency."""
    rows = []
    for one in results.latency:
        anytime = one.difference_ms.anytime
        rows.append(
            (
                escape(one.treatment),
                quantile_words(one.quantile),
                f"{one.control_ms:,.4g}",
                f"{one.treatment_ms:,.4g}",
                number_words(one.difference_ms.estimate, relative=False),
                "-" if anytime is None else interval_words(anytime, relative=False),
                interval_words(one.difference_ms.fixed, relative=False),
                _badge(one.verdict, VERDICTS[one.verdict]),
            )
        )
    heads = ("Arm", "Quantile", "Control, ms", "Treatment, ms", "Difference", "Any time", "At the end", "Verdict")
    return f"<section>\n<h2>Latency</h2>\n{_table('Latency', heads, rows)}\n</section>" if rows else ""


def metrics_section(results: ExperimentResults) -> str:
    """List every figure of every metric."""
    rows = [_metric(metric) for metric in results.metrics]
    heads = (
        *(
            "Metric",
            "Arm",
            "Control",
            "Treatment",
            "Difference",
            "Any time",
            "At the end",
            "p, any time",
            "p, at the end",
        ),
        *("q", "Detectable", "CUPED"),
    )
    return f"<section>\n<h2>All figures</h2>\n{_table('All figures', heads, rows)}\n</section>" if rows else ""


def _metric(metric: MetricResult) -> tuple[str, ...]:
    absolute = metric.absolute
    anytime = None if absolute is None else absolute.anytime
    return (
        escape(metric.name),
        escape(metric.treatment),
        mean_words(metric.control_mean),
        mean_words(metric.treatment_mean),
        "-" if absolute is None else number_words(absolute.estimate, relative=False),
        "-" if anytime is None else interval_words(anytime, relative=False),
        "-" if absolute is None else interval_words(absolute.fixed, relative=False),
        p_words(metric.p_value_anytime),
        p_words(metric.p_value),
        p_words(metric.q_value_anytime),
        "-" if metric.detectable_rel is None else percent(metric.detectable_rel)[1:],
        "-" if metric.covariate is None else f"{metric.covariate.variance_reduction:.0%}",
    )


def _badge(kind: str, words: str) -> str:
    return f'<span class="badge {kind}">{escape(words)}</span>'


def _table(name: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Make a table of cells that are HTML already; the first of a row is its head."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
