from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.dispatch.retry_budget import RETRIES_MIN, RETRY_SHARE, WINDOW_S, RetryBudget


class BudgetMachine(RuleBasedStateMachine):
    """The budget against a plain list of everything that ever happened."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = RetryBudget()
        self.now_s = 1_000.0
        self.requests: list[tuple[int, int]] = []
        self.retries: list[tuple[int, int]] = []
        self.refused = 0

    def recent(self, events: list[tuple[int, int]]) -> int:
        return sum(count for second, count in events if second > int(self.now_s) - WINDOW_S)

    @property
    def allowed(self) -> int:
        return max(RETRIES_MIN, int(self.recent(self.requests) * RETRY_SHARE))

    @rule(step_s=st.one_of(st.floats(0, 3), st.floats(0, 40)))
    def wait(self, step_s: float) -> None:
        self.now_s += step_s

    @rule(requests=st.integers(1, 500))
    def record(self, requests: int) -> None:
        self.budget.record(requests, self.now_s)
        self.requests.append((int(self.now_s), requests))

    @rule(requests=st.integers(1, 40))
    def spend(self, requests: int) -> None:
        fits = self.recent(self.retries) + requests <= self.allowed
        assert self.budget.spend(requests, self.now_s) == fits
        if fits:
            self.retries.append((int(self.now_s), requests))
        else:
            self.refused += requests

    @invariant()
    def what_is_left_is_what_the_last_ten_seconds_allow(self) -> None:
        assert self.budget.left(self.now_s) == max(0, self.allowed - self.recent(self.retries))
        assert self.budget.refused == self.refused


TestRetryBudget = BudgetMachine.TestCase
TestRetryBudget.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
