"""Anytime-valid tests of a treatment against control, from counts alone: look as often as you like.

Each returns evidence that is an e-value, or compares with bounds that hold at all times at once. Under the null
hypothesis the chance that it *ever* reaches 1/alpha is at most alpha (Ville's inequality), however long it is watched
and whenever it is stopped. Requests are taken as independent of each other.

Nothing here is asymptotic, so that a canary's first hundred requests may be judged.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Final

_PRIOR: Final = 0.5
"""Of the Beta mixture, both parameters: Krichevsky and Trofimov's, whose price is half a logarithm of the count."""

_SEARCH_STEPS: Final = 60
DKW_FACTOR: Final = 0.85
DKW_CONSTANT: Final = 1612.0


def log_evidence_rate(treatment: tuple[int, int], control: tuple[int, int], allowed: Callable[[float], float]) -> float:
    """Return the logarithm of the evidence against `rate of treatment <= allowed(rate of control)`.

    treatment, control: (hits, trials). allowed: linear and growing, as `rate + 0.01` or `1.25 * rate`.
    The numerator is the likelihood under a Beta mixture of both rates, the denominator the largest likelihood that the
    null hypothesis can give: at most the likelihood ratio for the true rates, whatever they are, so an e-process
    (universal inference: Wasserman, Ramdas and Balakrishnan 2020; method of mixtures: Robbins 1970).
    """
    (hits, trials), (control_hits, control_trials) = treatment, control
    if not trials or not control_trials:
        return 0.0
    mixture = _log_mixture(hits, trials) + _log_mixture(control_hits, control_trials)
    low, rate = control_hits / control_trials, hits / trials
    if rate <= allowed(low):
        best = _log_likelihood(rate, hits, trials) + _log_likelihood(low, control_hits, control_trials)
        return min(0.0, mixture - best)

    def at_border(control_rate: float) -> float:
        treatment_rate = min(1.0, allowed(control_rate))
        return _log_likelihood(treatment_rate, hits, trials) + _log_likelihood(
            control_rate, control_hits, control_trials
        )

    return mixture - _largest(at_border, low, _inverse(allowed, rate, low))


def log_evidence_above(hits: int, trials: int, rate: float) -> float:
    """Return the logarithm of the evidence against `true rate <= rate`; 0 or less where none is seen."""
    if not trials:
        return 0.0
    # Below the rate too by the largest likelihood: a 0 there would give the whole an expectation above one.
    return _log_mixture(hits, trials) - _log_likelihood(min(rate, hits / trials), hits, trials)


def log_evidence_below(hits: int, trials: int, rate: float) -> float:
    """Return the logarithm of the evidence against `true rate >= rate`; 0 or less where none is seen."""
    return log_evidence_above(trials - hits, trials, 1 - rate)


def log_evidence_quantile(
    treatment: Mapping[int, int],
    control: Mapping[int, int],
    quantile: float,
    allowed_bin: Callable[[int], int],
) -> float:
    """Return the logarithm of the evidence against `quantile of treatment <= allowed quantile of control`.

    treatment, control: counts by bin, bins in the order of what they hold. allowed_bin: the bin above whose upper edge
    a value is certainly above what is allowed, given a bin whose upper edge control's quantile does not exceed.

    Control's quantile is bounded from above at half the level, and the share of the treatment above what is allowed
    then compared with `1 - quantile` at the other half: both are e-values, so the smaller of them, halved, counts.
    Only one bin matters to either under the null hypothesis, since tails shrink with the bin, so that choosing the bin
    by the data costs nothing.
    """
    trials, control_trials = sum(treatment.values()), sum(control.values())
    best = 0.0
    above, control_above = _counts_above(treatment), _counts_above(control)
    for edge in sorted(control):
        bound = log_evidence_below(control_above(edge), control_trials, 1 - quantile)
        if bound <= math.log(2):
            continue
        hits = above(allowed_bin(edge))
        best = max(best, min(bound, log_evidence_above(hits, trials, 1 - quantile)) - math.log(2))
        if hits == 0:
            break
    return best


def distance_beyond_chance(treatment: Mapping[int, int], control: Mapping[int, int], alpha: float) -> float:
    """Return by how much two distributions differ beyond what chance explains: 0 to 1, as Kolmogorov's distance.

    Larger than the true distance with a chance of at most alpha, at any time. Source of the bound: Howard and Ramdas
    2022, "Sequential estimation of quantiles", corollary 2, for each arm at half the level.
    """
    trials, control_trials = sum(treatment.values()), sum(control.values())
    if not trials or not control_trials:
        return 0.0
    seen = _distance(treatment, trials, control, control_trials)
    return max(0.0, seen - _dkw_radius(trials, alpha / 2) - _dkw_radius(control_trials, alpha / 2))


def _counts_above(counts: Mapping[int, int]) -> Callable[[int], int]:
    """Make a function that says how many lie in bins above one."""
    indices = sorted(counts)
    up_to = list(accumulate((counts[index] for index in indices), initial=0))
    return lambda index: up_to[-1] - up_to[bisect_right(indices, index)]


def _distance(one: Mapping[int, int], one_trials: int, other: Mapping[int, int], other_trials: int) -> float:
    below = other_below = 0
    largest = 0.0
    for index in sorted(one.keys() | other.keys()):
        below += one.get(index, 0)
        other_below += other.get(index, 0)
        largest = max(largest, abs(below / one_trials - other_below / other_trials))
    return largest


def _dkw_radius(trials: int, alpha: float) -> float:
    iterated = math.log(math.log(math.e * trials))
    return DKW_FACTOR * math.sqrt((iterated + 0.8 * math.log(DKW_CONSTANT / alpha)) / trials)


def _log_mixture(hits: int, trials: int) -> float:
    return _log_beta(_PRIOR + hits, _PRIOR + trials - hits) - _log_beta(_PRIOR, _PRIOR)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _log_likelihood(rate: float, hits: int, trials: int) -> float:
    misses = trials - hits
    if (hits and rate <= 0) or (misses and rate >= 1):
        return -math.inf
    return (hits * math.log(rate) if hits else 0.0) + (misses * math.log1p(-rate) if misses else 0.0)


def _inverse(allowed: Callable[[float], float], value: float, low: float) -> float:
    """Return the rate from which `value` is just allowed: linear interpolation, since `allowed` is linear."""
    at_0, at_1 = allowed(0.0), allowed(1.0)
    return min(1.0, max(low, (value - at_0) / (at_1 - at_0)))


def _largest(function: Callable[[float], float], low: float, high: float) -> float:
    """Return the maximum of a concave function between two points, by golden section."""
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(_SEARCH_STEPS):
        if at_left > at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = function(right)
    return max(at_left, at_right, function(low), function(high))
