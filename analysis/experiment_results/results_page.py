"""The results as one HTML file that needs no network and no library, in light or dark, wide or narrow."""

from html import escape
from importlib import resources
from pathlib import Path

from analysis.experiment_results.charts import shares_svg
from analysis.experiment_results.page_charts import (
    disagreement_section,
    effects_over_time,
    forest_section,
    units_section,
)
from analysis.experiment_results.page_tables import arms_table, epochs_section, latency_section, metrics_section
from analysis.experiment_results.report import ExperimentResults, MetricResult, RatioCheck
from analysis.experiment_results.report_sentences import (
    EXPLANATIONS,
    covariate_sentence,
    coverage_sentence,
    headline,
    intervals_sentence,
    left_out_sentence,
    plan_sentence,
    ratio_advice,
    ratio_sentence,
    stage_words,
    title_of,
    window_sentence,
)
from analysis.experiment_results.report_words import interval_words, mean_words, number_words, p_words, percent
from analysis.whole_file import write_whole


def write_page(results: ExperimentResults, path: Path) -> None:
    """Write the page, whole or not at all. Raises OSError."""
    write_whole(path, render_page(results).encode())


def render_page(results: ExperimentResults) -> str:
    """Render the page as text. Every name in it is escaped."""
    top = headline(results)
    sections = [
        _header(results),
        _ratio(results),
        *(_primary(results, metric) for metric in results.of("primary")),
        effects_over_time(results),
        forest_section(results),
        latency_section(results),
        disagreement_section(results),
        units_section(results),
        epochs_section(results),
        metrics_section(results),
        _notes(results),
        _explanations(),
    ]
    style = _asset("analysis", "html_report.css") + _asset("analysis.experiment_results", "results_page.css")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(top.title)}: {escape(results.experiment)}</title>\n"
        f"<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(filter(None, sections))
        + "\n</main>\n</body>\n</html>\n"
    )


def _asset(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def _header(results: ExperimentResults) -> str:
    top = headline(results)
    facts = [
        ("Model", results.model),
        ("Split by", results.unit),
        ("State", results.state),
        ("Counted", window_sentence(results.window)),
        ("Coverage", coverage_sentence(results.window)),
        ("Not counted", left_out_sentence(results).partition(": ")[2]),
    ]
    return (
        f'<header>\n<p class="eyebrow">Experiment results</p>\n<h1>{escape(results.experiment)}</h1>\n'
        f'<p class="verdict {top.outcome}"><strong>{escape(top.title)}</strong> '
        f"<span>{escape(top.sentence)}</span></p>\n"
        f"{_facts(facts)}\n</header>"
    )


def _facts(facts: list[tuple[str, str]]) -> str:
    listed = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts)
    return f'<dl class="facts">{listed}</dl>'


def _ratio(results: ExperimentResults) -> str:
    ratio = results.sample_ratio
    checks = [check for check in ratio.checks if check.epoch is None or check.failed]
    rows = "".join(_check(results, check) for check in checks)
    advice = f"<p>{escape(ratio_advice(results))}</p>" if ratio.failed else ""
    looked = f"Looked at all along: p {p_words(ratio.p_value_anytime)}, whenever one stops (units assigned)."
    return (
        f'<section>\n<h2>Is the split sound?</h2>\n<div class="panel{" alarm" if ratio.failed else ""}">\n'
        f"<p><strong>{escape(ratio_sentence(results))}</strong> {escape(looked)}</p>{advice}\n"
        f'<ul class="stages">{rows}</ul>\n</div>\n{arms_table(results)}\n</section>'
    )


def _check(results: ExperimentResults, check: RatioCheck) -> str:
    told = [
        f"{arm.name} {units:,} (expected {expected:,.0f})"
        for arm, units, expected in zip(results.arms, check.units, check.expected, strict=True)
    ]
    badge = '<span class="badge fails">does not fit</span>' if check.failed else '<span class="badge holds">fits</span>'
    bar = shares_svg(check.units, check.expected, f"Units {stage_words(check)}: {', '.join(told)}")
    return (
        f"<li><span>Units {escape(stage_words(check))}<small>{escape('; '.join(told))}</small></span>{bar}"
        f'<span class="end">{badge} p {escape(p_words(check.p_value))}</span></li>'
    )


def _primary(results: ExperimentResults, metric: MetricResult) -> str:
    relative = metric.relative is not None
    effect = metric.absolute if metric.relative is None else metric.relative
    figure = "-" if effect is None else number_words(effect.estimate, relative=relative)
    facts = [
        (f"Mean of {results.control}", mean_words(metric.control_mean)),
        (f"Mean of {metric.treatment}", mean_words(metric.treatment_mean)),
    ]
    if effect is not None:
        anytime = "-" if effect.anytime is None else interval_words(effect.anytime, relative=relative)
        facts += [
            ("Interval, any time", anytime),
            ("Interval, at the end", interval_words(effect.fixed, relative=relative)),
        ]
    if metric.absolute is not None and relative:
        facts.append(("Absolute", number_words(metric.absolute.estimate, relative=False)))
    facts.append(("p, any time", p_words(metric.p_value_anytime)))
    told = [f"{metric.reason}.", plan_sentence(results, metric), covariate_sentence(metric)]
    warned = '<p><span class="badge fails">the sample ratio fails</span></p>' if results.sample_ratio.failed else ""
    return (
        f"<section>\n<h2>{escape(metric.name)}: {escape(metric.treatment)} against {escape(results.control)}</h2>\n"
        f'<div class="panel hero"><div><div class="figure {metric.verdict}">{escape(figure)}</div>'
        f'<p><span class="badge {metric.verdict}">{escape(title_of(metric))}</span></p>{warned}'
        f"{_progress(results, metric)}</div>\n"
        f"<div>{''.join(f'<p>{escape(text)}</p>' for text in told if text)}"
        f"<p>{escape(intervals_sentence([metric]))}</p>{_facts(facts)}</div></div>\n</section>"
    )


def _progress(results: ExperimentResults, metric: MetricResult) -> str:
    """Show how much of the planned size is there: of the units planned, or of the information that they would give."""
    plan = results.plan
    if plan is None or metric.detectable_rel is None:
        return ""
    if plan.units_planned is not None:
        share = results.window.units / plan.units_planned
    else:
        share = (plan.mde_rel / metric.detectable_rel) ** 2
    told = f"{share:.0%} of the planned size, for effects from {percent(plan.mde_rel)[1:]}"
    return f'<p>{escape(told)}</p><div class="progress"><i style="width:{min(100.0, 100 * share):.1f}%"></i></div>'


def _notes(results: ExperimentResults) -> str:
    listed = "".join(f"<li>{escape(note)}</li>" for note in results.notes)
    return f'<section>\n<h2>Notes</h2>\n<ul class="notes">{listed}</ul>\n</section>' if listed else ""


def _explanations() -> str:
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in EXPLANATIONS.items())
    return f'<section>\n<h2>How to read this</h2>\n<dl class="explained">{listed}</dl>\n</section>'
