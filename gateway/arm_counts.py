"""What guardrails are judged by: counts of each arm's requests, kept here until somebody takes them."""

from collections.abc import Callable, Iterator
from math import isfinite
from typing import Any, Final

from experiments import Assignment, Experiment
from experiments.canary import ArmCounts, latency_bin, score_bin
from gateway.errors import (
    DeadlineExceeded,
    FeaturesUnavailable,
    ModelNotReady,
    Overloaded,
    WorkerRefused,
    WorkerUnavailable,
)

ARM_FAULTS: Final = (
    DeadlineExceeded,
    FeaturesUnavailable,
    ModelNotReady,
    Overloaded,
    WorkerRefused,
    WorkerUnavailable,
)
"""For which the arm answers: not what the caller did wrong."""


class ArmCounter:
    """Counts requests of experiments that are guarded or have a ramp; others cost a look. clock: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counts: dict[int, tuple[Experiment, dict[str, ArmCounts]]] = {}

    def answered(
        self, assignment: Assignment, total_us: int, outputs: list[list[Any]], *, stepped_down: bool, degraded: bool
    ) -> None:
        """Count one answer. stepped_down: another than the arm's own version gave it, which is an error of the arm.

        Its score is the first output of the first instance.
        """
        counts = self._of(assignment)
        if counts is None:
            return
        counts.requests += 1
        counts.fallbacks += degraded
        index = latency_bin(total_us)
        counts.latency[index] = counts.latency.get(index, 0) + 1
        if stepped_down:
            counts.errors += 1
            return
        score = outputs[0][0] if outputs and outputs[0] else None
        if isinstance(score, int | float) and isfinite(score):
            index = score_bin(score)
            counts.scores[index] = counts.scores.get(index, 0) + 1

    def failed(self, assignment: Assignment, received_at: float) -> None:
        """Count one request that got no answer."""
        counts = self._of(assignment)
        if counts is None:
            return
        counts.requests += 1
        counts.errors += 1
        index = latency_bin(int((self._clock() - received_at) * 1e6))
        counts.latency[index] = counts.latency.get(index, 0) + 1

    def take(self) -> Iterator[tuple[Experiment, dict[str, ArmCounts]]]:
        """Return what was counted since the last time, by experiment, and begin anew."""
        counts, self._counts = self._counts, {}
        yield from counts.values()

    def give_back(self, experiment: Experiment, arms: dict[str, ArmCounts]) -> None:
        """Count again what could not be passed on."""
        for name, counts in arms.items():
            self._arm(experiment, name).add(counts)

    def _of(self, assignment: Assignment) -> ArmCounts | None:
        experiment = assignment.experiment
        if experiment is None or not assignment.enrolled:
            return None
        if not experiment.guardrails and experiment.ramp is None:
            return None
        assert assignment.variant is not None
        return self._arm(experiment, assignment.variant.name)

    def _arm(self, experiment: Experiment, name: str) -> ArmCounts:
        # By identity: each revision is an object of its own, and is counted with the enrolment that it had.
        found = self._counts.get(id(experiment))
        if found is None:
            found = self._counts[id(experiment)] = (experiment, {})
        arms = found[1]
        counts = arms.get(name)
        if counts is None:
            counts = arms[name] = ArmCounts()
        return counts
