"""Sample-ratio mismatch: do the arms have as many units as the split's own probabilities say?

Where they have not, units were lost or added on one side for a reason, and that reason is in every effect. Counted are
units, each once: rows of one unit come together, and would make any chance look like a fault.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

Counts = NDArray[np.int64]
Shares = NDArray[np.float64]

SRM_ALPHA: Final = 0.001
"""Below it a report hides its effects. One healthy experiment in a thousand is suspected (Fabijan et al. 2019)."""

EXPECTED_MIN: Final = 5.0
"""Fewer units expected in any arm, and the chi-square distribution is no good approximation (Cochran 1954)."""

PRIOR_UNITS: Final = 1_000.0
"""How firmly the Dirichlet mixture holds to the split: largest evidence where shares are off by a few points."""

_DRAWS: Final = 19_999
_SEED: Final = 0
"""Fixed, so that the same units always give the same report."""


@dataclass(frozen=True, slots=True)
class Split:
    """The units of one epoch: observed (arms,), and the shares (arms,) that the split gave, which add up to 1."""

    observed: Counts
    shares: Shares


@dataclass(frozen=True, slots=True)
class RatioTest:
    """Pearson's statistic over all splits, its degrees of freedom, and the chance of one as large without a fault."""

    statistic: float
    degrees: int
    p_value: float


def ratio_test(splits: Sequence[Split]) -> RatioTest:
    """Test that units are split by the shares: Pearson's chi-square, added up over epochs, each by its own shares.

    Splits must not share units: a unit counts in one of them. Where an arm expects under EXPECTED_MIN units, the
    p-value comes from simulated splits instead of the distribution; its least value is then 1 / 20,000. An arm with
    share 0 that has units makes the p-value 0. Without units it is 1.
    """
    occupied = [split for split in splits if split.observed.sum()]
    if not occupied:
        return RatioTest(0.0, 0, 1.0)
    if any(split.observed[split.shares <= 0].any() for split in occupied):
        return RatioTest(float(np.finfo(np.float64).max), 0, 0.0)
    kept = [Split(one.observed[one.shares > 0], one.shares[one.shares > 0]) for one in occupied]
    statistic = float(sum(_pearson(one.observed, one.shares) for one in kept))
    degrees = sum(one.shares.size - 1 for one in kept)
    if degrees == 0:
        return RatioTest(statistic, 0, 1.0)
    if min(float((one.shares * one.observed.sum()).min()) for one in kept) >= EXPECTED_MIN:
        return RatioTest(statistic, degrees, float(special.chdtrc(degrees, statistic)))
    return RatioTest(statistic, degrees, _simulated_p_value(kept, statistic))


def log_bayes_factor(split: Split) -> float:
    """Evidence against the split, as the logarithm of a Bayes factor: a Dirichlet mixture over the split's own shares.

    A martingale under the split, unit by unit: whenever one looks, it exceeds log(1 / alpha) with a chance of at most
    alpha (Lindon and Malek 2022, Anytime-valid inference for multinomial count data, theorem 1, with the prior
    concentrated on the split). Factors of splits that share no unit multiply, so their logarithms add.
    """
    observed, shares = split.observed, split.shares
    if observed[shares <= 0].any():
        return float("inf")
    counts, expected = observed[shares > 0].astype(np.float64), shares[shares > 0]
    prior = PRIOR_UNITS * expected
    total = counts.sum()
    mixture = special.gammaln(prior.sum()) - special.gammaln(prior.sum() + total)
    mixture += np.sum(special.gammaln(prior + counts) - special.gammaln(prior))
    return float(mixture - np.sum(counts * np.log(expected)))


def anytime_p_value(log_bayes_factors: Sequence[float]) -> float:
    """Turn the evidence of every look so far into a p-value that is valid whenever one stops looking."""
    strongest = max(log_bayes_factors, default=0.0)
    return float(np.exp(-max(strongest, 0.0)))


def _pearson(observed: NDArray[np.int64], shares: Shares) -> NDArray[np.float64]:
    expected = shares * observed.sum(axis=-1, keepdims=True)
    found: NDArray[np.float64] = np.sum(np.square(observed - expected) / expected, axis=-1)
    return found


def _simulated_p_value(splits: Sequence[Split], statistic: float) -> float:
    generator = np.random.default_rng(_SEED)
    simulated = np.zeros(_DRAWS)
    for split in splits:
        drawn = generator.multinomial(int(split.observed.sum()), _whole(split.shares), size=_DRAWS)
        simulated += _pearson(drawn, split.shares)
    # Draws that tie with what was found differ from it in their last bits only.
    return float((np.count_nonzero(simulated >= statistic * (1 - 1e-9)) + 1) / (_DRAWS + 1))


def _whole(shares: Shares) -> Shares:
    """Scale shares whose sum is 1 but for the last bits: numpy refuses a sum above 1."""
    scaled: Shares = shares / shares.sum()
    return scaled
