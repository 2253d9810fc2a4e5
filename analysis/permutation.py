"""The chance of a PSI as large as the one found, had both samples come from one distribution.

Exchange the samples' labels at random and see how often the PSI is as large (Fisher 1935, Pitman 1937). It holds for
every distribution, and for nearly empty bins too, where the chi-square approximation does not: one rare category in a
window of 120 rows had a chi-square p-value under 1e-10.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from analysis.divergence import EMPTY_BIN_ROWS, Counts, population_stability_index

DRAWS_FIRST: Final = 999
DRAWS_MAX: Final = 9_999
"""The least p-value is one in ten thousand: after adjustment for up to 500 columns it can still be told from chance."""

ENOUGH_AS_LARGE: Final = 10
"""With so many draws as large among the first, the p-value is known well enough (Besag, Clifford 1991)."""

_SEED: Final = 0
"""Fixed, so that the same rows always give the same report."""


def psi_p_value(reference: Counts, current: Counts) -> float:
    """Give the one-sided p-value, 0.0001 to 1.

    reference, current (bins,): rows over the same bins; effective rows are rounded to whole ones.
    Raises ValueError as `population_stability_index` does.
    """
    found = population_stability_index(reference, current)
    pooled = np.rint(reference + current).astype(np.int64)
    drawn = min(int(np.rint(current.sum())), int(pooled.sum()))
    pooled = pooled[pooled > 0]
    if pooled.size < 2:
        return 1.0
    generator = np.random.default_rng(_SEED)
    as_large = _count_as_large(generator, pooled, drawn, found, DRAWS_FIRST)
    if as_large >= ENOUGH_AS_LARGE:
        return (as_large + 1) / (DRAWS_FIRST + 1)
    as_large += _count_as_large(generator, pooled, drawn, found, DRAWS_MAX - DRAWS_FIRST)
    return (as_large + 1) / (DRAWS_MAX + 1)


def _count_as_large(
    generator: np.random.Generator, pooled: NDArray[np.int64], drawn: int, found: float, draws: int
) -> int:
    current = generator.multivariate_hypergeometric(pooled, drawn, size=draws, method="marginals")
    p, q = _shares(pooled - current), _shares(current)
    psi = np.sum((p - q) * np.log(p / q), axis=1)
    # Draws that tie with what was found differ from it in their last bits only.
    return int(np.count_nonzero(psi >= found * (1 - 1e-9)))


def _shares(counts: NDArray[np.int64]) -> Counts:
    filled = np.where(counts == 0, EMPTY_BIN_ROWS, counts)
    shares: Counts = filled / filled.sum(axis=1, keepdims=True)
    return shares
