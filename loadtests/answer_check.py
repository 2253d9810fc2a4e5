"""Whether every answer is right: the offline value of that user, from the version that the answer names."""

from collections.abc import Mapping, Sequence
from math import sqrt

import msgspec

from loadtests.http_connection import Response

TOLERANCE = 1e-5
SHARE_BOUND_SIGMAS = 5
"""How far the split may be from its share: beyond five standard deviations it is no chance (1 in 1.7 million)."""


class Answer(msgspec.Struct):
    """What is read of a prediction; everything else in it is skipped."""

    predictions: list[float]
    version: str
    degraded: list[str] = []


class AnswerCheck:
    """Checks answers against offline values, and that a unit keeps its version.

    expected: version -> (rows,) offline value of each row.
    rows: request -> the rows whose predictions it asks for, in order; the first stands for the unit of the split.
    noun: what a row is called in a problem, before its number.
    """

    def __init__(self, expected: Mapping[str, Sequence[float]], rows: Sequence[Sequence[int]], noun: str = "u") -> None:
        self._expected, self._rows, self._noun = expected, rows, noun
        self._decode = msgspec.json.Decoder(Answer).decode
        self._version_of: dict[int, str] = {}

    def problem(self, request: int, response: Response) -> str | None:
        """Say what is wrong with an answer; None where it is right."""
        if response.status != 200:
            return f"status {response.status}"
        try:
            answer = self._decode(response.body)
        except msgspec.MsgspecError as error:
            return f"not a prediction: {error}"
        rows = self._rows[request]
        expected = self._expected.get(answer.version)
        if expected is None:
            return f"unknown version {answer.version!r}"
        if answer.degraded:
            return f"degraded: {', '.join(answer.degraded)}"
        if (before := self._version_of.setdefault(rows[0], answer.version)) != answer.version:
            return f"{self._noun}{rows[0]}: version {answer.version} after version {before}"
        return self._wrong_value(answer, rows, expected)

    def units_by_version(self) -> dict[str, int]:
        """How many distinct units each version answered."""
        served = list(self._version_of.values())
        return {version: served.count(version) for version in sorted(set(served))}

    def _wrong_value(self, answer: Answer, rows: Sequence[int], expected: Sequence[float]) -> str | None:
        if len(answer.predictions) != len(rows):
            return f"{len(answer.predictions)} predictions for {len(rows)} instances"
        for row, got in zip(rows, answer.predictions, strict=True):
            # Written so that a NaN is wrong too.
            if not abs(got - expected[row]) <= TOLERANCE:
                return f"{self._noun}{row}: {got} from version {answer.version}, offline {expected[row]}"
        return None


class StatusCheck:
    """Checks the status only: for servers whose answer is a constant."""

    def problem(self, _request: int, response: Response) -> str | None:
        """Say what is wrong with an answer; None where it is right."""
        return None if response.status == 200 else f"status {response.status}"

    def units_by_version(self) -> dict[str, int]:
        """Nothing: a constant has no version."""
        return {}


def share_problem(units_by_version: Mapping[str, int], version: str, share: float) -> str | None:
    """Say whether a version's share of distinct units is beyond chance; None where it is not.

    Each unit draws independently, so the count is binomial(units, share); the bound adds half a unit for its steps.
    """
    units = sum(units_by_version.values())
    found = units_by_version.get(version, 0)
    bound = SHARE_BOUND_SIGMAS * sqrt(units * share * (1 - share)) + 0.5
    if abs(found - units * share) <= bound:
        return None
    return f"version {version} answered {found} of {units} units; the split says {share:.0%} (±{bound:.0f} units)"
