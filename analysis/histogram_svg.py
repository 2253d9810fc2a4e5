"""Draw a column's paired histogram as SVG: the baseline's share of each bin beside the window's.

Every bin is equally wide, whatever it spans: bins are cut where the baseline has equally many rows, so that the
baseline is about level and any change stands out as a step away from it.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import Final

from analysis.drift_report import Bar

CATEGORIES_SHOWN_MAX: Final = 9
"""More are drawn together as one row."""

_WIDTH, _HEIGHT = 360, 168
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 4, 8, 24
_ROW_HEIGHT = 30
_LABEL_WIDTH = 104
_LABEL_CHARACTERS = 16
_AXIS_LABEL_GAP = 8
_CHARACTER_WIDTH = 6.4


def histogram_svg(bars: Sequence[Bar], *, categorical: bool, title: str) -> str:
    """Draw bars as an SVG element, styled by the page's classes; text is escaped. No bars give an empty string."""
    if not bars:
        return ""
    return _rows(_folded(bars), title) if categorical else _columns(_without_empty_ends(bars), title)


def _columns(bars: Sequence[Bar], title: str) -> str:
    top_share = _nice_ceiling(max(max(bar.baseline, bar.current) for bar in bars))
    plot_width, plot_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    slot = plot_width / len(bars)
    thickness = slot * 0.42
    base = _TOP + plot_height

    def rectangle(kind: str, x: float, share: float) -> str:
        height = plot_height * share / top_share
        return (
            f'<rect class="{kind}" x="{x:.1f}" y="{base - height:.1f}" width="{thickness:.1f}" height="{height:.1f}"/>'
        )

    parts = [_grid_line(base, 0.0)]
    parts += [_grid_line(base - plot_height * part, top_share * part) for part in (0.5, 1.0)]
    for index, bar in enumerate(bars):
        x = _LEFT + slot * index + slot * 0.07
        pair = rectangle("before", x, bar.baseline) + rectangle("now", x + thickness, bar.current)
        parts.append(f"<g>{_tooltip(bar)}{pair}</g>")
    parts += _edge_labels(bars, slot)
    return _svg(_HEIGHT, title, parts)


def _edge_labels(bars: Sequence[Bar], slot: float) -> list[str]:
    """Name the lower edge of as many bins as have room, the first one always."""
    labels: list[str] = []
    free_from = 0.0
    for index, bar in enumerate(bars):
        text = bar.label.split(" to ")[0]
        width = _CHARACTER_WIDTH * len(text)
        x = _LEFT + slot * (index + (0.5 if text[:2] in {"< ", "> "} else 0))
        left = min(max(x - width / 2, 0), _WIDTH - width)
        if left >= free_from:
            labels.append(f'<text x="{left:.1f}" y="{_HEIGHT - 8}">{escape(text)}</text>')
            free_from = left + width + _AXIS_LABEL_GAP
    return labels


def _rows(bars: Sequence[Bar], title: str) -> str:
    height = _ROW_HEIGHT * len(bars) + 4
    top_share = max(max(bar.baseline, bar.current) for bar in bars) or 1.0
    plot_width = _WIDTH - _LABEL_WIDTH - 44
    parts: list[str] = []
    for index, bar in enumerate(bars):
        y = 4 + _ROW_HEIGHT * index
        before, now = (plot_width * share / top_share for share in (bar.baseline, bar.current))
        label = bar.label if len(bar.label) <= _LABEL_CHARACTERS else bar.label[: _LABEL_CHARACTERS - 1] + "…"
        parts.append(
            f"<g>{_tooltip(bar)}"
            f'<text x="{_LABEL_WIDTH - 8}" y="{y + 16}" text-anchor="end">{escape(label)}</text>'
            f'<rect class="before" x="{_LABEL_WIDTH}" y="{y + 1}" width="{before:.1f}" height="10"/>'
            f'<rect class="now" x="{_LABEL_WIDTH}" y="{y + 12}" width="{now:.1f}" height="10"/>'
            f'<text x="{_LABEL_WIDTH + max(before, now) + 6:.1f}" y="{y + 16}">{_percent(bar.current)}</text></g>'
        )
    return _svg(height, title, parts)


def _folded(bars: Sequence[Bar]) -> list[Bar]:
    some = [bar for bar in bars if bar.baseline or bar.current]
    if len(some) <= CATEGORIES_SHOWN_MAX + 1:
        return some
    least = sorted(max(bar.baseline, bar.current) for bar in some)[-CATEGORIES_SHOWN_MAX]
    shown = [bar for bar in some if max(bar.baseline, bar.current) >= least][:CATEGORIES_SHOWN_MAX]
    rest = [bar for bar in some if bar not in shown]
    together = Bar(f"{len(rest)} further", sum(bar.baseline for bar in rest), sum(bar.current for bar in rest))
    return [*shown, together]


def _without_empty_ends(bars: Sequence[Bar]) -> list[Bar]:
    shown = list(bars)
    for end in (0, -1):
        if len(shown) > 1 and not shown[end].baseline and not shown[end].current:
            shown.pop(end)
    return shown


def _svg(height: int, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _grid_line(y: float, share: float) -> str:
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{_percent(share)}</text>'
    )


def _tooltip(bar: Bar) -> str:
    return f"<title>{escape(bar.label)}: baseline {bar.baseline:.2%}, now {bar.current:.2%}</title>"


def _percent(share: float) -> str:
    return f"{share * 100:.3g}%"


def _nice_ceiling(share: float) -> float:
    """Round up to 1, 2, 4, 5 or 10 times a power of ten, so that half of it is a short number too."""
    if share <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(share))
    return next(step * power for step in (1, 2, 4, 5, 10) if share <= step * power * (1 + 1e-12))
