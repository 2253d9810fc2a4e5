import re

import pytest

from analysis.drift_report import Bar
from analysis.histogram_svg import CATEGORIES_SHOWN_MAX, histogram_svg


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_many_categories_keep_their_order_and_the_least_are_drawn_together():
    bars = [Bar(f"c{number:02}", number / 100, 0.0) for number in range(1, 15)]
    labels = [text for text in texts(histogram_svg(bars, categorical=True, title="t")) if not text.endswith("%")]
    shown = [f"c{number:02}" for number in range(15 - CATEGORIES_SHOWN_MAX, 15)]
    assert labels == [*shown, f"{14 - CATEGORIES_SHOWN_MAX} further"]


def test_out_of_range_bins_are_drawn_only_where_they_hold_something():
    bars = [Bar("< 0", 0.0, 0.0), Bar("0 to 1", 1.0, 0.9), Bar("> 1", 0.0, 0.1)]
    svg = histogram_svg(bars, categorical=False, title="t")
    assert svg.count('class="before"') == 2


@pytest.mark.parametrize("share", [0.0, 1e-12, 0.03, 0.5, 1.0])
def test_no_bar_is_taller_than_its_plot(share):
    svg = histogram_svg([Bar("0 to 1", share, share / 2)], categorical=False, title="t")
    heights = [float(height) for height in re.findall(r'height="([0-9.]+)"', svg)]
    assert all(height <= 136 for height in heights)


def test_no_bars_draw_nothing():
    assert histogram_svg([], categorical=False, title="t") == ""
