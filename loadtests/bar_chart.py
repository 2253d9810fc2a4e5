"""A bar chart as SVG that reads on a light and on a dark page."""

from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH = 760
_LABEL_WIDTH, _VALUE_WIDTH = 150, 190
_TOP, _ROW, _BAR = 64, 36, 20
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 }
.note { font-size: 11px; fill: #59636e }
.bar { fill: #8c959f } .own { fill: #0969da } .whisker { stroke: #1f2328; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .note { fill: #9198a1 }
  .bar { fill: #656c76 } .own { fill: #4493f8 } .whisker { stroke: #e6edf3 }
}
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: `value` with its range, a text after it, and whether it is the one to look at."""

    label: str
    value: float
    least: float
    most: float
    text: str
    highlighted: bool


def bar_chart(title: str, note: str, bars: list[Bar]) -> str:
    """Draw horizontal bars from a common zero, with a whisker from least to most. Raises ValueError without bars."""
    if not bars:
        raise ValueError("a chart needs at least one bar")
    longest = max(bar.most for bar in bars) or 1.0
    scale = (WIDTH - _LABEL_WIDTH - _VALUE_WIDTH) / longest
    height = _TOP + _ROW * len(bars) + 12
    rows = "\n".join(_row(bar, _TOP + i * _ROW, scale) for i, bar in enumerate(bars))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{_quoted(title)}">\n'
        f"<style>{_STYLE}</style>\n"
        f'<text class="title" x="0" y="18">{escape(title)}</text>\n'
        f'<text class="note" x="0" y="38">{escape(note)}</text>\n{rows}\n</svg>\n'
    )


def _row(bar: Bar, y: int, scale: float) -> str:
    middle = y + _BAR / 2
    shape = "bar own" if bar.highlighted else "bar"
    whisker_from, whisker_to = (_LABEL_WIDTH + value * scale for value in (bar.least, bar.most))
    return (
        f'<text x="{_LABEL_WIDTH - 10}" y="{middle + 4.5}" text-anchor="end">{escape(bar.label)}</text>'
        f'<rect class="{shape}" x="{_LABEL_WIDTH}" y="{y}" width="{bar.value * scale:.1f}" height="{_BAR}" rx="3"/>'
        f'<line class="whisker" x1="{whisker_from:.1f}" x2="{whisker_to:.1f}" y1="{middle}" y2="{middle}"/>'
        f'<text x="{whisker_to + 8:.1f}" y="{middle + 4.5}">{escape(bar.text)}</text>'
    )


def _quoted(text: str) -> str:
    return escape(text, {'"': "&quot;"})
