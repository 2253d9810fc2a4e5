"""The breaker on a virtual clock, whatever reads begin and however and whenever they end."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from feature_store.circuit_breaker import FAILURES_TO_OPEN, OPEN_S_MAX, REFUSED, BreakerState, CircuitBreaker


class BreakerMachine(RuleBasedStateMachine):
    """A store that may answer or not, reads in flight, and time."""

    reads = Bundle("reads")

    @initialize(draws=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=5))
    def start(self, draws: list[float]) -> None:
        self.now_s = 0.0
        self.draws, self.drawn = draws, 0
        self.breaker = CircuitBreaker(self.draw)
        self.probes: set[int] = set()
        self.open_since_s = 0.0

    def draw(self) -> float:
        self.drawn += 1
        return self.draws[self.drawn % len(self.draws)]

    @rule(target=reads)
    def begin(self) -> int:
        before = self.breaker.state
        period = self.breaker.admit(self.now_s)
        if before is BreakerState.CLOSED:
            assert period != REFUSED
        elif before is BreakerState.HALF_OPEN:
            assert period == REFUSED, "one probe at a time"
        elif period != REFUSED:
            assert not self.probes, "the one before has ended"
            self.probes.add(period)
        return period

    @rule(read=consumes(reads), end=st.sampled_from(["succeeded", "failed", "withdrawn"]))
    def end(self, read: int, end: str) -> None:
        if read == REFUSED:
            return
        before = self.breaker.state
        if end == "failed":
            self.breaker.failed(read, self.now_s)
        else:
            getattr(self.breaker, end)(read)
        was_probe = read in self.probes
        self.probes.discard(read)
        after = self.breaker.state
        if was_probe:
            assert before is BreakerState.HALF_OPEN
            assert after is (BreakerState.CLOSED if end == "succeeded" else BreakerState.OPEN)
        elif before is not BreakerState.CLOSED:
            assert after is before, "only the probe decides"
        if after is BreakerState.OPEN and (before is BreakerState.CLOSED or end == "failed"):
            self.open_since_s = self.now_s

    @rule(seconds=st.floats(0, 3))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(reads_of_a_dead_store=st.integers(FAILURES_TO_OPEN, 9))
    def die(self, reads_of_a_dead_store: int) -> None:
        if self.breaker.state is BreakerState.CLOSED:
            for _read in range(reads_of_a_dead_store):
                if (period := self.breaker.admit(self.now_s)) != REFUSED:
                    self.breaker.failed(period, self.now_s)
            assert self.breaker.state is BreakerState.OPEN
            self.open_since_s = self.now_s

    @rule()
    def heal(self) -> None:
        """A store that answers again is found within the longest time that it is left alone, by the first read."""
        if self.breaker.state is BreakerState.OPEN:
            self.now_s = max(self.now_s, self.open_since_s + OPEN_S_MAX)
            self.breaker.succeeded(self.breaker.admit(self.now_s))
            assert self.breaker.state is BreakerState.CLOSED

    @invariant()
    def half_open_is_exactly_one_probe_in_flight(self) -> None:
        if hasattr(self, "breaker"):
            assert (self.breaker.state is BreakerState.HALF_OPEN) == (len(self.probes) == 1)

    @invariant()
    def a_breaker_without_suspicion_admits_and_nothing_is_lost_by_not_asking_it(self) -> None:
        if hasattr(self, "breaker") and not self.breaker.suspects:
            assert self.breaker.state is BreakerState.CLOSED
            assert self.breaker.admit(self.now_s) == self.breaker.period
            kept = self.breaker.period, self.breaker._failures
            self.breaker.succeeded(self.breaker.period)
            assert (self.breaker.period, self.breaker._failures) == kept


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
