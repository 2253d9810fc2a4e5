"""What one logged row says of its assignment."""

from typing import Final, NamedTuple


class Answer(NamedTuple):
    """What it says beside the unit and its buckets; of all rows of a log there are few different ones.

    arm: as assigned. served: the arm that answered. version: the one that scored. stepped_down: whether a fault made
    another one answer.
    """

    model: str
    version: str
    experiment: str | None
    revision: int | None
    epoch: int | None
    arm: str | None
    served: str | None
    probability: float | None
    forced: bool
    shadow: bool
    stepped_down: bool


class LoggedAssignment(NamedTuple):
    """All that it says: one decision, which many rows may share. The unit is None where no experiment is named."""

    answer: Answer
    unit: str | None
    enrol_bucket: int | None
    split_bucket: int | None


COLUMN_BY_FACT: Final = {
    "model": "model",
    "version": "version",
    "experiment": "experiment",
    "revision": "revision",
    "epoch": "epoch",
    "arm": "variant_assigned",
    "served": "variant_served",
    "probability": "assignment_probability",
    "forced": "forced",
    "shadow": "shadow",
    "stepped_down": "error_code",
    "unit": "unit",
    "enrol_bucket": "enrol_bucket",
    "split_bucket": "split_bucket",
}
"""Where each is logged; `stepped_down` is whether there is an error code."""

FACTS: Final = tuple(COLUMN_BY_FACT)
ANSWER_FACTS: Final = len(Answer._fields)
"""How many of FACTS, from the first, make the answer."""


def logged_assignment(facts: tuple[object, ...]) -> LoggedAssignment:
    """Make one of values in the order of FACTS."""
    return LoggedAssignment(Answer._make(facts[:ANSWER_FACTS]), *facts[ANSWER_FACTS:])  # type: ignore[arg-type]
