"""The results page's charts: effects over time, all metrics on one scale, units over time, and shadow pairs."""

from collections.abc import Sequence
from functools import partial
from html import escape
from typing import Final

from analysis.experiment_results.charts import (
    ARM_COLOURS,
    Band,
    Line,
    Scale,
    axis_html,
    interval_svg,
    scale_of,
    time_chart,
)
from analysis.experiment_results.report import (
    DisagreementResult,
    Effect,
    EffectPath,
    ExperimentResults,
    MetricResult,
    PathPoint,
    Role,
)
from analysis.experiment_results.report_sentences import disagreement_sentence, intervals_sentence
from analysis.experiment_results.report_words import VERDICTS, interval_words, number_words, time_words

SETTLED_FROM: Final = 0.2
"""The first fifth of a path does not set its scale: its intervals would make a flat line of all that follows."""

FOREST_REACH: Final = 3.0
"""How many times the second widest interval a scale of all metrics may hold; what is wider gets an arrow."""

_KEYS: Final = (
    '<p class="keys"><span><i class="key-any"></i>any time: look as often as you like</span>'
    '<span><i class="key-end"></i>at the end: one look at the planned size</span></p>'
)
_ROLES: Final[dict[Role, str]] = {"primary": "Primary", "secondary": "Secondary", "guardrail": "Guardrails"}


def effects_over_time(results: ExperimentResults) -> str:
    """Draw the primary effect over time, a chart for each treatment."""
    charts = [_path(results, path) for path in results.effect_paths if len(path.points) > 1]
    if not charts or results.plan is None:
        return ""
    return (
        f"<section>\n<h2>{escape(results.plan.primary)} over time</h2>\n{_KEYS}\n"
        f'<div class="two">{"".join(charts)}</div>\n</section>'
    )


def forest_section(results: ExperimentResults) -> str:
    """Draw all metrics of each treatment on one scale, relative to control."""
    sections = []
    for treatment in dict.fromkeys(metric.treatment for metric in results.metrics):
        mine = [metric for metric in results.metrics if metric.treatment == treatment]
        sections.append(_forest(results, treatment, mine))
    if not sections:
        return ""
    return f"<section>\n<h2>All metrics, relative to control</h2>\n{_KEYS}\n{''.join(sections)}\n</section>"


def units_section(results: ExperimentResults) -> str:
    """Draw units by arm as they came."""
    points = results.units_over_time
    if len(points) < 2:
        return ""
    times = [point.at for point in points]
    lines = [
        Line(f"line-{index % ARM_COLOURS}", [float(point.units[index]) for point in points])
        for index in range(len(results.arms))
    ]
    words = [
        f"{time_words(point.at)}: "
        + ", ".join(f"{arm.name} {units:,}" for arm, units in zip(results.arms, point.units, strict=True))
        for point in points
    ]
    scale = Scale(0.0, max(1.0, 1.05 * max(max(point.units) for point in points)))
    chart = time_chart(
        times, scale, lines=lines, form=lambda n: f"{n:,.0f}", title="Units by arm over time", words=words
    )
    keys = "".join(
        f'<span><i class="swatch swatch-{index % ARM_COLOURS}"></i>{escape(arm.name)}</span>'
        for index, arm in enumerate(results.arms)
    )
    legend = f'<p class="keys">{keys}</p>'
    return f'<section>\n<h2>Units over time</h2>\n{legend}\n<div class="panel">{chart}</div>\n</section>'


def disagreement_section(results: ExperimentResults) -> str:
    """Show the effect from units on which versions differ beside that from all of them."""
    panels = [_disagreement(one) for one in results.disagreement]
    return f"<section>\n<h2>Shadow pairs</h2>\n{''.join(panels)}\n</section>" if panels else ""


def _path(results: ExperimentResults, path: EffectPath) -> str:
    relative = all(point.relative is not None for point in path.points)
    effects = [_shown(point, relative=relative) for point in path.points]
    settled = effects[int(len(effects) * SETTLED_FROM) :]
    ends = [bound for effect in settled for bound in _ends(effect)]
    words = [
        f"{time_words(point.at)}: {number_words(effect.estimate, relative=relative)}, any time "
        + ("-" if effect.anytime is None else interval_words(effect.anytime, relative=relative))
        + f", at the end {interval_words(effect.fixed, relative=relative)}"
        for point, effect in zip(path.points, effects, strict=True)
    ]
    scale = scale_of(ends)
    chart = time_chart(
        [point.at for point in path.points],
        scale,
        bands=[Band("any", [effect.anytime for effect in effects]), Band("end", [effect.fixed for effect in effects])],
        lines=[Line("estimate", [effect.estimate for effect in effects])],
        form=partial(_tick, scale=scale, relative=relative),
        title=f"Effect of {path.treatment} over time",
        words=words,
    )
    return f'<div class="panel"><h3>{escape(path.treatment)} against {escape(results.control)}</h3>{chart}</div>'


def _shown(point: PathPoint, *, relative: bool) -> Effect:
    return point.relative if relative and point.relative is not None else point.absolute


def _ends(effect: Effect) -> list[float]:
    bounds = effect.fixed if effect.anytime is None else effect.anytime
    return [bounds.low, bounds.high]


def _forest(results: ExperimentResults, treatment: str, metrics: Sequence[MetricResult]) -> str:
    scale = _common_scale([metric.relative for metric in metrics if metric.relative is not None])
    rows: list[str] = []
    role = ""
    for metric in metrics:
        if metric.role != role:
            role = metric.role
            rows.append(f'<li class="role">{_ROLES[metric.role]}</li>')
        rows.append(_forest_row(metric, scale))
    axis = axis_html(scale, partial(_tick, scale=scale, relative=True))
    title = f"<h3>{escape(treatment)} against {escape(results.control)}</h3>"
    told = f"<p><small>{escape(intervals_sentence(metrics))}</small></p>"
    return f'<div class="panel">{title}<ul class="forest">{"".join(rows)}<li><span></span>{axis}</li></ul>{told}</div>'


def _forest_row(metric: MetricResult, scale: Scale) -> str:
    badge = f'<span class="verdict-cell"><span class="badge {metric.verdict}">{VERDICTS[metric.verdict]}</span></span>'
    if metric.relative is None:
        absolute = "-" if metric.absolute is None else number_words(metric.absolute.estimate, relative=False)
        drawing = f"<small>{escape(metric.reason)}</small>"
        return f'<li><span>{escape(metric.name)}</span>{drawing}<span class="value">{absolute}</span>{badge}</li>'
    told = number_words(metric.relative.estimate, relative=True)
    drawing = interval_svg(metric.relative, scale, metric.verdict, f"{metric.name}: {metric.reason}")
    less = " <small>less is better</small>" if metric.better == "decrease" else ""
    return f'<li><span>{escape(metric.name)}{less}</span>{drawing}<span class="value">{told}</span>{badge}</li>'


def _common_scale(effects: Sequence[Effect]) -> Scale:
    """Hold every estimate and 0, and intervals as far as one very wide one does not make points of the others."""
    if not effects:
        return scale_of([-0.01, 0.01])
    widths = sorted(max(abs(end) for end in _ends(effect)) for effect in effects)
    reach = FOREST_REACH * (widths[-2] if len(widths) > 1 else widths[-1])
    values = [min(reach, max(-reach, end)) for effect in effects for end in _ends(effect)]
    return scale_of([*values, *(effect.estimate for effect in effects)])


def _disagreement(one: DisagreementResult) -> str:
    sentence = f"<p>{escape(disagreement_sentence(one))}</p>"
    shown = [("All units scored twice", one.plain), ("From those that differ", one.diluted)]
    effects = [effect for _, effect in shown if effect is not None]
    if len(effects) < len(shown):
        return f'<div class="panel">{sentence}</div>'
    scale = scale_of([end for effect in effects for end in _ends(effect)])
    rows = "".join(
        f"<li><span>{name}</span>{interval_svg(effect, scale, '', f'{name}: {effect.estimate:+.4g}')}"
        f'<span class="value">{effect.estimate:+.4g}</span><span></span></li>'
        for name, effect in shown
        if effect is not None
    )
    axis = axis_html(scale, partial(_tick, scale=scale, relative=False))
    return f'<div class="panel">{sentence}<ul class="forest">{rows}<li><span></span>{axis}</li></ul></div>'


def _tick(value: float, *, scale: Scale, relative: bool) -> str:
    """Write a tick, with as many digits as the scale's span needs."""
    if not relative:
        return f"{value:.3g}"
    span = (scale.high - scale.low) * 100
    digits = 0 if span >= 10 else 1 if span >= 1 else 2
    return f"{value * 100:+.{digits}f}%" if abs(value) > 1e-12 else "0%"
