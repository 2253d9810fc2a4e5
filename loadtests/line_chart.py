"""Lines over time as SVG, one panel below the other, that read on a light and on a dark page."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log10
from xml.sax.saxutils import escape

WIDTH = 760
_LEFT, _RIGHT, _TOP = 60, 110, 56
_PANEL, _GAP, _LABEL = 130, 34, 13
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 } .panel { font-weight: 600 }
.note, .axis { font-size: 11px; fill: #59636e }
.grid { stroke: #d1d9e0; stroke-width: 1 }
.line { fill: none; stroke: #8c959f; stroke-width: 1.8 } .own { stroke: #0969da }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .note, .axis { fill: #9198a1 }
  .grid { stroke: #3d444d } .line { stroke: #656c76 } .own { stroke: #4493f8 }
}
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a panel: as many values as there are times."""

    label: str
    values: Sequence[float]
    highlighted: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines with one scale, which begins at zero."""

    title: str
    lines: Sequence[Line]


def line_chart(title: str, note: str, times: Sequence[float], time_unit: str, panels: Sequence[Panel]) -> str:
    """Draw panels over common times, which ascend from zero. Raises ValueError of fewer than two times."""
    if len(times) < 2:
        raise ValueError("a line needs at least two times")
    height = _TOP + len(panels) * (_PANEL + _GAP) + 12
    drawn = "\n".join(_panel(panel, _TOP + i * (_PANEL + _GAP) + 16, times) for i, panel in enumerate(panels))
    marks = "".join(
        f'<text class="axis" x="{_x(time, times):.1f}" y="{height - 8}" text-anchor="middle">{time:g}</text>'
        for time in _steps(times[-1])
        if time <= times[-1]
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title, {chr(34): "&quot;"})}">\n'
        f"<style>{_STYLE}</style>\n"
        f'<text class="title" x="0" y="18">{escape(title)}</text>\n'
        f'<text class="note" x="0" y="38">{escape(note)}</text>\n{drawn}\n{marks}'
        f'<text class="axis" x="{WIDTH - _RIGHT + 10}" y="{height - 8}">{escape(time_unit)}</text>\n</svg>\n'
    )


def _panel(panel: Panel, top: int, times: Sequence[float]) -> str:
    steps = _steps(max((max(line.values) for line in panel.lines), default=0.0) or 1.0)
    scale = _PANEL / steps[-1]
    grid = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="axis" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{step:g}</text>'
        for step in steps
        for y in [top + _PANEL - step * scale]
    )
    lines = "".join(_line(line, times, top + _PANEL, scale) for line in panel.lines)
    labels = _labels([(top + _PANEL - line.values[-1] * scale, line.label) for line in panel.lines])
    return f'<text class="panel" x="{_LEFT}" y="{top - 8}">{escape(panel.title)}</text>{grid}{lines}{labels}'


def _line(line: Line, times: Sequence[float], bottom: float, scale: float) -> str:
    points = [(_x(time, times), bottom - value * scale) for time, value in zip(times, line.values, strict=True)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    shape = "line own" if line.highlighted else "line"
    return f'<polyline class="{shape}" points="{path}"/>'


def _labels(wanted: list[tuple[float, str]]) -> str:
    """Label the ends of lines, each below the one above it where they would meet."""
    drawn, free_from = "", 0.0
    for y, label in sorted(wanted):
        at = max(y, free_from)
        drawn += f'<text x="{WIDTH - _RIGHT + 8}" y="{at + 4:.1f}">{escape(label)}</text>'
        free_from = at + _LABEL
    return drawn


def _x(time: float, times: Sequence[float]) -> float:
    return _LEFT + time / times[-1] * (WIDTH - _LEFT - _RIGHT)


def _steps(most: float) -> list[float]:
    """Round numbers from zero to at least `most`, three to six of them: 1, 2 or 5 times a power of ten apart."""
    power = 10.0 ** ceil(log10(most / 5) - 1)
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * 5 >= most)
    return [step * i for i in range(ceil(most / step) + 1)]
