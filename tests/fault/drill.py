"""One fault under load, from the quiet before it to the quiet after."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from tests.fault.fault_record import FaultRecord, Span, failures, fallbacks, noticed_s, recovered_s, span, whole_s
from tests.fault.held_resources import HeldResources
from tests.fault.load_records import HUNG_UP, LoadSpec, Phase, Question
from tests.fault.running_load import RunningLoad, running_load
from tests.integration.gateway_client import until
from tests.integration.gateway_stack import Gateway

LONGEST_S = 600.0
WHOLE_WITHIN_S = RECOVERS_WITHIN_S = 10.0
LOOKED_AT_S = 0.2
"""Of the latest answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long a fault lasts, and how long the load goes on before and after it."""

    mode: Literal["fast", "full"]
    before_s: float
    during_s: float
    after_s: float
    rate_per_s: float
    recovered_for_s: float
    """For so long answers must be good again."""


FAST = Timing(mode="fast", before_s=0.5, during_s=1.0, after_s=0.7, rate_per_s=150.0, recovered_for_s=0.5)
FULL = Timing(mode="full", before_s=3.0, during_s=8.0, after_s=6.0, rate_per_s=400.0, recovered_for_s=1.0)


@dataclass
class Drill:
    """A fault under way. Times are of the monotonic clock, in seconds."""

    gateway: Gateway
    timing: Timing
    deadline_s: float
    load: RunningLoad
    before: Span
    held: HeldResources
    began_s: float = 0.0
    ended_s: float = 0.0
    figures: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def fault(self, heal: Callable[[], object] = lambda: None, *, during_s: float | None = None) -> Iterator[None]:
        """Break something in here; it is healed when its time is over, or when the test fails."""
        self.began_s = time.monotonic()
        try:
            yield
            left_s = (self.timing.during_s if during_s is None else during_s) - (time.monotonic() - self.began_s)
            self.load.run_for(max(0.0, left_s))
        finally:
            heal()
            self.ended_s = time.monotonic()

    @property
    def healed_for_s(self) -> float:
        """How long ago the fault ended."""
        return time.monotonic() - self.ended_s

    def run_after(self) -> None:
        """Let the load go on after the fault, and until answers are good again: RECOVERS_WITHIN_S at most."""
        self.load.run_for(self.timing.after_s)
        while self._recovered_s() is None and self.healed_for_s < RECOVERS_WITHIN_S:
            self.load.run_for(LOOKED_AT_S)

    def _recovered_s(self) -> float | None:
        asked = self.load.asked.copy()
        over_s = max(a.due_s for a in asked)
        return recovered_s(asked, self.ended_s, over_s, self.timing.recovered_for_s, self.before, self.deadline_s)

    def wait_until_whole(self) -> None:
        """Wait until the latest answers were given without a fallback. Fails after WHOLE_WITHIN_S."""
        self.load.run_for(LOOKED_AT_S)
        until("answers are whole", self._is_whole, WHOLE_WITHIN_S)

    def _is_whole(self) -> bool:
        latest_s = max(asked.due_s for asked in self.load.asked[-50:])
        latest = [asked for asked in self.load.asked if asked.due_s >= latest_s - LOOKED_AT_S]
        return all(asked.kind in {"whole", HUNG_UP} for asked in latest)

    def record(self, number: int, fault: str) -> FaultRecord:
        """Sum up, once the load is over."""
        asked, deadline_s = self.load.asked, self.deadline_s
        over_s = max(a.due_s for a in asked)
        return FaultRecord(
            number=number,
            fault=fault,
            mode=self.timing.mode,
            before=self.before,
            during=span(asked, self.began_s, self.ended_s, deadline_s),
            after=span(asked, self.ended_s, over_s, deadline_s),
            failures=failures(asked, self.began_s),
            fallbacks=fallbacks(asked, self.began_s),
            noticed_s=noticed_s(asked, self.began_s, self.ended_s, deadline_s),
            recovered_s=self._recovered_s(),
            whole_s=whole_s(asked, self.ended_s),
            figures=self.figures,
        )


@contextmanager
def drill(
    gateway: Gateway,
    questions: tuple[Question, ...],
    timing: Timing,
    *,
    deadline_s: float,
    ports: tuple[int, ...] = (),
    hang_up_share: float = 0.0,
) -> Iterator[Drill]:
    """Load a gateway; the block begins when all has been well for a while, and is followed by the time after."""
    spec = LoadSpec(
        ports=ports or (gateway.port,),
        questions=questions,
        phases=(Phase(LONGEST_S, timing.rate_per_s),),
        hang_up_share=hang_up_share,
    )
    with running_load(spec) as load:
        load.wait_for(1)
        load.run_for(0.3)  # the first requests find cold caches
        from_s = time.monotonic()
        load.run_for(timing.before_s)
        before = span(load.asked.copy(), from_s, time.monotonic(), deadline_s)
        running = Drill(gateway, timing, deadline_s, load, before, HeldResources.settled(gateway))
        yield running
        running.run_after()
