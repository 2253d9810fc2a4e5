"""Units as numpy arrays: what the statistics are given by DuckDB in the product."""

import numpy as np

from analysis.experiment_results.contrast import VALUES, Moments, Stratum


def columns(numerator, denominator=None, past=None, past_denominator=None):
    """Put a metric's values side by side, (units, VALUES)."""
    numerator = np.asarray(numerator, "f8")
    ones, zeros = np.ones(numerator.size), np.zeros(numerator.size)
    given = (numerator, denominator, past, past_denominator)
    defaults = (None, ones, zeros, zeros)
    return np.column_stack([d if g is None else np.asarray(g, "f8") for g, d in zip(given, defaults, strict=True)])


def moments(values):
    """Give the moments of (units, VALUES) values."""
    mean = values.mean(axis=0) if len(values) else np.zeros(VALUES)
    deviations = values - mean
    return Moments(len(values), mean, deviations.T @ deviations, int(np.count_nonzero(values[:, 0])))


def stratum(control, treatment, epoch=1):
    """Pair two arms' values."""
    return Stratum(epoch, moments(control), moments(treatment))


class Units:
    """Lines of units: unit, epoch and arm (0 control, 1 treatment) of each, and values (lines, VALUES)."""

    def __init__(self, unit, epoch, arm, values):
        self.unit, self.epoch, self.arm, self.values = unit, epoch, arm, values

    def strata(self):
        """Give each epoch's moments."""
        return [
            stratum(*(self.values[(self.epoch == epoch) & (self.arm == arm)] for arm in (0, 1)), epoch=int(epoch))
            for epoch in np.unique(self.epoch)
        ]

    def clustered(self, influences):
        """Add up influences by unit."""
        moved = np.zeros((2, self.unit.max() + 1))
        for one in influences:
            mine = (self.epoch == one.epoch) & (self.arm == one.is_treatment)
            by_line = one.weights[:, :1] + one.weights[:, 1:] @ self.values[mine].T
            for arm in (0, 1):
                moved[arm] += np.bincount(self.unit[mine], by_line[arm], minlength=moved.shape[1])
        return moved @ moved.T
