"""What a check is, and what can come of it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from tests.conformance.probe import Probe


class Level(StrEnum):
    """How much hangs on a check."""

    REQUIRED = "required"
    """The specification, or the HTTP below it, says so; a client may rely on it."""

    EXTENSION = "extension"
    """Only where the server offers the extension."""

    HARDENING = "hardening"
    """Input that is wrong or hostile: a clear refusal, and a server that goes on serving."""

    OBSERVED = "observed"
    """Left open by the specification: what the server does is written down, and never wrong."""


class Verdict(StrEnum):
    """What came of a check."""

    PASSES = "passes"
    DEVIATES = "deviates"
    NOT_OFFERED = "not offered"
    OBSERVED = "observed"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is asked of a server.

    source: page and section that it stands for. claim: what must hold, in one sentence. run: raises Deviation or
    NotOffered; what it returns is written down where the level is OBSERVED.
    """

    id: str
    level: Level
    source: str
    claim: str
    run: Callable[[Probe], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one check. `sent` and `came`, of the whole exchange, are cut to readable lengths."""

    check: Check
    verdict: Verdict
    expected: str
    found: str
    sent: tuple[str, ...]
    came: tuple[str, ...]

    @property
    def fails(self) -> bool:
        """Whether a required check deviates."""
        return self.verdict is Verdict.DEVIATES and self.check.level is Level.REQUIRED
