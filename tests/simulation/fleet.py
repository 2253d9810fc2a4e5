"""A fleet of simulated workers under Poisson load, behind the gateway's own pool and dispatcher."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any
from unittest import mock

from gateway.dispatch import balancing
from gateway.dispatch.batch import Scores
from gateway.dispatch.batch_dispatcher import BatchDispatcher
from gateway.dispatch.dispatch_rules import DispatchRules
from gateway.dispatch.worker_address import address_of
from gateway.dispatch.worker_pool import WorkerPool
from gateway.errors import WorkerUnavailable
from tests.simulation.simulated_worker import Behaviour, SimulatedWorker, WorkerTransport
from tests.simulation.virtual_loop import BEGINS_S, run
from tests.unit.gateway.gateway_fakes import rows_of, signature_of_echo

SETTLE_S = 1.0
"""For the pool to connect, before load."""

ROW = rows_of(1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is simulated: a worker for each behaviour, and what they are asked."""

    behaviours: Sequence[Behaviour]
    requests_per_s: float
    duration_s: float
    deadline_s: float = 0.2
    batch_s: float = 0.008
    row_s: float = 0.004
    batch_rows_max: int = 4
    seed: int = 1


@dataclass(slots=True)
class Outcome:
    """What came of it."""

    latencies_s: list[float] = field(default_factory=list)
    """Of those that were answered, or whose time ran out."""

    requests: int = 0
    errors: int = 0
    late: int = 0
    """Whose time ran out."""

    rows_computed: int = 0
    retried: int = 0
    hedged: int = 0
    refused: int = 0
    """By the retry budget."""

    rows_sent: int = 0

    @property
    def failed_share(self) -> float:
        """Share of requests without an answer in time."""
        return (self.errors + self.late) / self.requests

    @property
    def extra_share(self) -> float:
        """Retries and hedges, as a share of the requests."""
        return (self.retried + self.hedged) / self.requests

    def quantile_s(self, quantile: float) -> float:
        ordered = sorted(self.latencies_s)
        return ordered[min(int(quantile * len(ordered)), len(ordered) - 1)]


def simulate(scenario: Scenario, rules: DispatchRules, *, full_scan: bool = False) -> Outcome:
    """Run a scenario. full_scan: choose the replica that holds least of all, however many there are."""
    random = Random(scenario.seed)
    workers = [
        SimulatedWorker(behaviour, Random(random.random()), BEGINS_S + SETTLE_S, scenario.batch_s, scenario.row_s)
        for behaviour in scenario.behaviours
    ]

    def connect(protocol: asyncio.Protocol, host: str, port: int) -> WorkerTransport:
        return WorkerTransport(protocol, workers[port - 1])

    scan_max = len(workers) if full_scan else balancing.FULL_SCAN_MAX
    with mock.patch.object(balancing, "FULL_SCAN_MAX", scan_max), _quiet("gateway.dispatch"):
        outcome = run(lambda: _load(scenario, rules, random), connect)
    outcome.rows_computed = sum(worker.rows for worker in workers)
    return outcome


async def _load(scenario: Scenario, rules: DispatchRules, random: Random) -> Outcome:
    loop = asyncio.get_running_loop()
    addresses = [address_of(f"http://worker:{1 + index}") for index in range(len(scenario.behaviours))]
    pool = WorkerPool(addresses, loop.time, rules=rules, random=Random(scenario.seed))
    dispatcher = BatchDispatcher(signature_of_echo(scenario.batch_rows_max), pool, loop.time)
    pool.on_change = dispatcher.wake
    pool.start()
    if rules.eject:
        pool.check_readiness("/v2/health/ready")
    await asyncio.sleep(SETTLE_S)
    outcome = Outcome()
    ends_s = loop.time() + scenario.duration_s
    while loop.time() < ends_s:
        _ask(dispatcher, scenario.deadline_s, outcome)
        await asyncio.sleep(random.expovariate(scenario.requests_per_s))
    await asyncio.sleep(scenario.deadline_s * 2)
    await pool.close()
    outcome.retried, outcome.hedged = dispatcher.retried, dispatcher.hedged
    outcome.refused, outcome.rows_sent = dispatcher.budget.refused, dispatcher.rows_sent
    return outcome


def _ask(dispatcher: BatchDispatcher, deadline_s: float, outcome: Outcome) -> None:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    answer = dispatcher.submit(ROW, 1, began_s + deadline_s)
    over = loop.call_at(began_s + deadline_s, answer.cancel)

    def done(answered: asyncio.Future[Scores]) -> None:
        over.cancel()
        outcome.requests += 1
        if not answered.cancelled() and (error := answered.exception()) is not None:
            assert isinstance(error, WorkerUnavailable)
            outcome.errors += 1
            return
        outcome.latencies_s.append(loop.time() - began_s)
        outcome.late += answered.cancelled()

    answer.add_done_callback(done)


@contextmanager
def _quiet(logger: str) -> Any:
    was = logging.getLogger(logger).level
    logging.getLogger(logger).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logging.getLogger(logger).setLevel(was)
