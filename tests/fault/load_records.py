"""What a load process is told, and what it tells of each request. Times are seconds of the system's monotonic clock."""

from collections.abc import Sequence

import msgspec

LINE_BYTES_MAX = 64 * 1024 * 1024
"""Of one line that a load process writes."""

HUNG_UP = "hung up"
"""The `failure` of a request whose client went away on purpose."""


class Question(msgspec.Struct, frozen=True):
    """A request that can be asked again and again, and every answer to it that is right."""

    path: str
    body: str
    expected: dict[str, float]
    """By version, and by version and the views whose defaults were fed (`answer_key`), the one right prediction."""

    drawn: str = ""
    """The version that the split draws; another one must say why it answered. Empty: any version may answer."""

    headers: dict[str, str] = {}


class Phase(msgspec.Struct, frozen=True):
    """A time of steady arrivals."""

    seconds: float
    rate_per_s: float


class LoadSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One load. Clients turn to the next port when theirs asks them to leave or refuses them."""

    ports: tuple[int, ...]
    questions: tuple[Question, ...]
    phases: tuple[Phase, ...]
    connections_max: int = 256
    """Requests that are due while all of them are busy wait, and their latency counts that."""

    answer_s_max: float = 10.0
    """After this long a client gives up: a hang."""

    hang_up_share: float = 0.0
    """Share of requests whose client goes away before its answer, on a connection of its own."""

    seed: int = 1


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """One request's fate."""

    question: int
    due_s: float
    done_s: float
    status: int
    """0: no answer."""

    version: str = ""
    degraded: tuple[str, ...] = ()
    code: str = ""
    failure: str = ""
    """Why there is no answer, or what is wrong with a 200."""

    @property
    def latency_s(self) -> float:
        """From when it was due, so that a generator held up by the server hides nothing (no coordinated omission)."""
        return self.done_s - self.due_s

    @property
    def right(self) -> bool:
        """Whether it was answered, and as it must be."""
        return self.status == 200 and not self.failure

    @property
    def kind(self) -> str:
        """`whole`, the fallbacks of a right answer, status and code of a refusal, or what went wrong."""
        if self.failure:
            return self.failure if self.status == 0 else "wrong answer"
        return f"{self.status} {self.code}" if self.status != 200 else "+".join(self.degraded) or "whole"


def answer_key(version: str, degraded: Sequence[str]) -> str:
    """The key of `Question.expected`: which version answered, and which views it was fed the defaults of."""
    defaulted = sorted(fallback for fallback in degraded if fallback.startswith("feature_default:"))
    return "+".join([version, *defaulted])
