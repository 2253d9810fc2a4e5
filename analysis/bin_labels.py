"""Name bins for people."""

from itertools import pairwise

from analysis.profile import CategoryBins, NumericBins

CATEGORY_CHARACTERS_MAX = 60


def bin_labels(bins: NumericBins | CategoryBins) -> list[str]:
    """Name every place of the bins' counts, in order: `< 1.5`, `1.5 to 2`, …, `> 9`, or the categories and `other`."""
    if isinstance(bins, CategoryBins):
        return [*(_category(value) for value in bins.categories), "other"]
    edges = [_number(edge) for edge in (*bins.lower_edges, bins.upper)]
    inner = [low if low == high else f"{low} to {high}" for low, high in pairwise(edges)]
    return [f"< {edges[0]}", *inner, f"> {edges[-1]}"]


def _number(value: float) -> str:
    return f"{value:.4g}"


def _category(value: bool | int | str) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= CATEGORY_CHARACTERS_MAX else text[: CATEGORY_CHARACTERS_MAX - 1] + "…"
