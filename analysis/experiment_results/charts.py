"""Inline SVG and HTML for the results page: intervals on a common scale, and lines over time.

Positions are percentages of whatever width the page has, and text is never inside a picture that is stretched: so the
same chart is readable on a phone and on a wall.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from itertools import pairwise
from typing import Final

from analysis.experiment_results.report import Bounds, Effect

TICKS: Final = 5
ARM_COLOURS: Final = 8
"""Arms beyond these share colours; the table names them all."""

_PLOT: Final = (1000, 300)
"""The box that lines are drawn in before the page stretches it."""


@dataclass(frozen=True, slots=True)
class Scale:
    """From a value to percent of the way from low to high; values beyond are held at the ends."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Give the place of a value, 0 to 100."""
        return 100 * min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def ticks(self) -> list[float]:
        """Give round values within the scale."""
        step = _nice((self.high - self.low) / TICKS)
        first = math.ceil(self.low / step - 1e-9)
        return [step * n for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def scale_of(values: Sequence[float], *, zero: bool = True) -> Scale:
    """Make a scale that holds all values, and 0 where wanted, with some room."""
    some = [*values, *([0.0] if zero else [])] or [0.0]
    low, high = min(some), max(some)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return Scale(low - room, high + room)


def interval_svg(effect: Effect, scale: Scale, kind: str, title: str) -> str:
    """Draw both intervals of one effect: a thin line for any time, a thick one for the end, a dot for the estimate."""
    parts = [f'<line class="zero" x1="{scale.at(0):.2f}%" x2="{scale.at(0):.2f}%" y1="0" y2="100%"/>']
    if effect.anytime is not None:
        parts.append(_bar("anytime", effect.anytime, scale))
        parts += _arrows(effect.anytime, scale)
    parts.append(_bar("fixed", effect.fixed, scale))
    parts.append(f'<circle cx="{scale.at(effect.estimate):.2f}%" cy="50%" r="5"/>')
    return _svg(f"interval {kind}", title, parts)


def axis_html(scale: Scale, form: Callable[[float], str]) -> str:
    """Write the ticks of a horizontal scale."""
    marks = "".join(f'<span style="left:{scale.at(tick):.2f}%">{escape(form(tick))}</span>' for tick in scale.ticks())
    return f'<div class="axis" aria-hidden="true">{marks}</div>'


def shares_svg(observed: Sequence[int], expected: Sequence[float], title: str) -> str:
    """Draw units by arm as one bar, with a mark where the split would have each border."""
    total, wanted = sum(observed) or 1, sum(expected) or 1.0
    parts: list[str] = []
    at = should = 0.0
    for index, (units, expects) in enumerate(zip(observed, expected, strict=True)):
        width = 100 * units / total
        parts.append(f'<rect class="arm-{index % ARM_COLOURS}" x="{at:.3f}%" y="4" width="{width:.3f}%" height="14"/>')
        at += width
        should += 100 * expects / wanted
        if should < 99.999:
            parts.append(f'<line class="should" x1="{should:.3f}%" x2="{should:.3f}%" y1="0" y2="22"/>')
    return _svg("shares", title, parts)


@dataclass(frozen=True, slots=True)
class Line:
    """Values over time; None where there is none yet. kind: the class that colours it."""

    kind: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Band:
    """A lower and an upper bound over time."""

    kind: str
    bounds: Sequence[Bounds | None]


def time_chart(
    times: Sequence[datetime],
    scale: Scale,
    *,
    lines: Sequence[Line],
    bands: Sequence[Band] = (),
    form: Callable[[float], str],
    title: str,
    words: Sequence[str],
) -> str:
    """Draw bands and lines over time. words: what is said of each time when a pointer rests on it."""
    width, height = _PLOT
    across = Scale(times[0].timestamp(), times[-1].timestamp() if len(times) > 1 else times[0].timestamp() + 1)
    xs = [across.at(time.timestamp()) / 100 * width for time in times]

    def y(value: float) -> float:
        return height * (1 - scale.at(value) / 100)

    parts = [_grid(y(tick)) for tick in scale.ticks()]
    parts += [_band(band, xs, y) for band in bands]
    if scale.low < 0 < scale.high:
        parts.append(f'<line class="zero" x1="0" x2="{width}" y1="{y(0):.1f}" y2="{y(0):.1f}"/>')
    parts += [_line(line, xs, y) for line in lines]
    parts += _pointers(xs, words)
    y_labels = "".join(
        f'<span style="top:{100 - scale.at(tick):.2f}%">{escape(form(tick))}</span>' for tick in scale.ticks()
    )
    return (
        f'<div class="plot"><div class="y-labels" aria-hidden="true">{y_labels}</div>'
        f'<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img" aria-label="{escape(title)}">'
        f'{"".join(parts)}</svg><div class="x-labels" aria-hidden="true">{_times(times, across)}</div></div>'
    )


def _svg(kind: str, title: str, parts: Sequence[str]) -> str:
    said = escape(title)
    return f'<svg class="{kind}" role="img" aria-label="{said}"><title>{said}</title>{"".join(parts)}</svg>'


def _bar(kind: str, bounds: Bounds, scale: Scale) -> str:
    return (
        f'<line class="{kind}" x1="{scale.at(bounds.low):.2f}%" x2="{scale.at(bounds.high):.2f}%" y1="50%" y2="50%"/>'
    )


def _arrows(bounds: Bounds, scale: Scale) -> list[str]:
    """Say that an interval goes on beyond the scale."""
    arrows = []
    if bounds.low < scale.low:
        arrows.append('<text class="beyond" x="0" y="50%" dy="0.35em">&lsaquo;</text>')
    if bounds.high > scale.high:
        arrows.append('<text class="beyond" x="100%" y="50%" dy="0.35em" text-anchor="end">&rsaquo;</text>')
    return arrows


def _grid(y: float) -> str:
    return f'<line class="grid" x1="0" x2="{_PLOT[0]}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _band(band: Band, xs: Sequence[float], y: Callable[[float], float]) -> str:
    some = [(x, bounds) for x, bounds in zip(xs, band.bounds, strict=True) if bounds is not None]
    if len(some) < 2:
        return ""
    upper = [f"{x:.1f},{y(bounds.high):.1f}" for x, bounds in some]
    lower = [f"{x:.1f},{y(bounds.low):.1f}" for x, bounds in reversed(some)]
    return f'<polygon class="{band.kind}" points="{" ".join([*upper, *lower])}"/>'


def _line(line: Line, xs: Sequence[float], y: Callable[[float], float]) -> str:
    some = [f"{x:.1f},{y(value):.1f}" for x, value in zip(xs, line.values, strict=True) if value is not None]
    return f'<polyline class="{line.kind}" points="{" ".join(some)}"/>'


def _pointers(xs: Sequence[float], words: Sequence[str]) -> list[str]:
    borders = [0.0, *((one + other) / 2 for one, other in pairwise(xs)), float(_PLOT[0])]
    return [
        f'<rect class="pointer" x="{left:.1f}" y="0" width="{max(0.1, right - left):.1f}" height="{_PLOT[1]}">'
        f"<title>{escape(told)}</title></rect>"
        for (left, right), told in zip(pairwise(borders), words, strict=True)
    ]


def _times(times: Sequence[datetime], across: Scale) -> str:
    """Name the first and the last time and some between, by day, or by hour within a day or two."""
    short = (times[-1] - times[0]).total_seconds() < 3 * 86_400
    gaps = 2 if short else 4
    chosen = sorted({round(index * (len(times) - 1) / gaps) for index in range(gaps + 1)})
    labels = []
    for index in chosen:
        time = times[index].astimezone(UTC)
        text = f"{time:%d %b %H:%M}" if short else f"{time:%d %b}"
        labels.append(f'<span style="left:{across.at(times[index].timestamp()):.2f}%">{text}</span>')
    return "".join(labels)


def _nice(step: float) -> float:
    """Round up to 1, 2, 2.5, 5 or 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(part * power for part in (1, 2, 2.5, 5, 10) if step <= part * power * (1 + 1e-12))
