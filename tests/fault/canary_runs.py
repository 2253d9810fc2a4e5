"""Canaries on real processes, under load: `python -m tests.fault.canary_runs`.

Versions that fail three rows in a hundred, or take twice as long, are rolled back by themselves; one that is as good as
the champion climbs its ramp and is promoted, also where the gateway that watches it is killed on the way. Told is how
long that took, and how many requests the treatment was given.
"""

import argparse
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fault.experimenting_stack import CHAMPION, FAILING, HEALTHY, MODEL, SLOW, ExperimentingStack, questions
from tests.fault.load_records import LoadSpec, Phase
from tests.fault.running_load import RunningLoad, running_load
from tests.integration.experiments_admin import EXPERIMENTS, Admin, document
from tests.integration.gateway_client import until
from tests.integration.gateway_stack import Gateway

NAME = "canary"
PATH = f"{EXPERIMENTS}/{NAME}"
CONTROLLER = "sekisho-controller"
LONGEST_S = 600.0
DECIDED_WITHIN_S = 60.0

ERRORS = {"metric": "error_rate", "max_abs_increase": 0.01}
MEDIAN = {"metric": "p50_ms", "max_rel_increase": 0.25}
TAIL = {"metric": "p99_ms", "max_rel_increase": 0.25}


@dataclass(frozen=True, slots=True)
class Canary:
    """What became of one canary."""

    what: str
    seconds: float
    """From the answer to the request that started it until every gateway served by its end."""

    requests: int
    """That were drawn into the treatment by then, as they were counted."""

    decisions: tuple[str, ...]
    """The reasons of the controller's changes, the eldest first."""

    document: dict[str, Any]
    """As it was left."""

    callers: Counter[str]
    """Answers by kind."""

    took_over_s: float | None = None
    """From the death of the leader until another one led."""

    @property
    def noticed(self) -> dict[str, int]:
        """What callers had that is neither a whole answer nor the champion's in place of the treatment's."""
        return {kind: count for kind, count in self.callers.items() if kind not in {"whole", "variant_fallback"}}

    def __str__(self) -> str:
        told = f"{self.what}: {self.seconds:.1f} s, {self.requests} requests to the treatment"
        if self.took_over_s is not None:
            told += f", another gateway led after {self.took_over_s:.1f} s"
        told += f"; callers: {dict(self.callers)}"
        return "\n".join((told, *(f"    {reason}" for reason in self.decisions)))


def roll_back(stack: ExperimentingStack, version: str, guardrail: dict[str, Any], rate_per_s: float) -> Canary:
    """Give half of the units a version that is worse, and wait until none has it any more."""
    with _loaded(stack.pair, rate_per_s) as loads:
        admins, started_s = _start(stack, version, [guardrail], None)
        _wait_for_end(admins)
        seconds = time.monotonic() - started_s
    what = "3 % of its rows fail" if version == FAILING else "it takes twice as long"
    allowed = next(f"{key} {value:g}" for key, value in guardrail.items() if key != "metric")
    return _summed_up(f"{what} ({guardrail['metric']}, {allowed})", admins, seconds, loads)


def climb(stack: ExperimentingStack, ramp: dict[str, Any], rate_per_s: float) -> Canary:
    """Let a version that is as good climb its ramp, and wait until it is promoted."""
    with _loaded(stack.pair, rate_per_s) as loads:
        admins, started_s = _start(stack, HEALTHY, [ERRORS, {**MEDIAN, "max_rel_increase": 1.0}], ramp)
        _wait_for_end(admins)
        seconds = time.monotonic() - started_s
    return _summed_up("it is as good", admins, seconds, loads)


def climb_without_leader(stack: ExperimentingStack, ramp: dict[str, Any], rate_per_s: float) -> Canary:
    """The same, but that the gateway that watches is killed after the first step. Another one is started in the end."""
    _, started_s = _start(stack, HEALTHY, [ERRORS], ramp)
    leader = until("one leads", lambda: _leader(stack), DECIDED_WITHIN_S)
    (follower,) = [gateway for gateway in stack.pair if gateway is not leader]
    left = [Admin(follower.admin_port)]
    with _loaded([follower], rate_per_s) as loads:
        first = ramp["steps_bp"][0]
        until("the first step is done", lambda: left[0].get(PATH)["document"].get("enrol_bp", first) != first)
        os.kill(leader.child.pid, signal.SIGKILL)
        killed_s = time.monotonic()
        until("the other one leads", lambda: left[0].status()["leads"], DECIDED_WITHIN_S)
        took_over_s = time.monotonic() - killed_s
        _wait_for_end(left)
        seconds = time.monotonic() - started_s
    leader.child.stop()
    stack.start_experimenting_gateway()
    return _summed_up("it is as good, and the leader is killed", left, seconds, loads, took_over_s)


@contextmanager
def _loaded(gateways: Sequence[Gateway], rate_per_s: float) -> Iterator[list[RunningLoad]]:
    """Load the gateways evenly; they are asked so often a second together."""
    phases = (Phase(LONGEST_S, rate_per_s / len(gateways)),)
    with ExitStack() as running:
        loads = [
            running.enter_context(running_load(LoadSpec(ports=(g.port,), questions=questions(), phases=phases, seed=n)))
            for n, g in enumerate(gateways)
        ]
        for load in loads:
            load.wait_for(20)
        yield loads


def _start(
    stack: ExperimentingStack, version: str, guardrails: list[dict[str, Any]], ramp: dict[str, Any] | None
) -> tuple[list[Admin], float]:
    admins = [Admin(gateway.admin_port) for gateway in stack.pair]
    admins[0].clear()
    variants = [
        {"name": "control", "version": CHAMPION, "bp": 5_000},
        {"name": "treatment", "version": version, "bp": 5_000},
    ]
    made = admins[0].create(document(NAME, model=MODEL, variants=variants, guardrails=guardrails, ramp=ramp))
    started_s = time.monotonic()
    until("every gateway has it", lambda: all(admin.has(int(made.json["revision"])) for admin in admins))
    return admins, started_s


def _wait_for_end(admins: Sequence[Admin]) -> None:
    def ended() -> bool:
        found = [admin.ask("GET", PATH) for admin in admins]
        return all(reply.status == 200 and reply.json["document"]["state"] == "concluded" for reply in found)

    until("it is concluded on every gateway", ended, DECIDED_WITHIN_S)


def _leader(stack: ExperimentingStack) -> Gateway | None:
    return next((gateway for gateway in stack.pair if Admin(gateway.admin_port).status()["leads"]), None)


def _summed_up(
    what: str, admins: Sequence[Admin], seconds: float, loads: Sequence[RunningLoad], took_over_s: float | None = None
) -> Canary:
    entries = admins[0].get(f"/admin/v1/audit?experiment={NAME}&limit=1000")["entries"]
    started = next(n for n, entry in enumerate(entries) if entry["before"] is None)
    reasons = tuple(e["reason"] for e in reversed(entries[:started]) if e["actor"] == CONTROLLER)
    counted = [re.search(r"after (\d+) requests to treatment", reason) for reason in reasons]
    arms = admins[0].get(f"{PATH}/guardrails")["arms"]
    requests = next((int(found[1]) for found in counted if found), arms["treatment"]["requests"])
    callers = Counter(asked.kind for load in loads for asked in load.asked)
    return Canary(what, seconds, requests, reasons, admins[0].get(PATH)["document"], callers, took_over_s)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them all, and print what became of each. Exit code 1 where one ended otherwise, or a caller noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fault.canary_runs", description=__doc__)
    parser.add_argument("--rate", type=float, default=200, help="requests a second in all, 200 if not given")
    parser.add_argument("--hold-s", type=float, default=1, help="of each step of the ramp, 1 if not given")
    given = parser.parse_args(arguments)
    ramp = {"steps_bp": [1_000, 3_000, 10_000], "hold_s": given.hold_s, "requests_min": 10, "promote": True}
    right = True
    with tempfile.TemporaryDirectory(prefix="sekisho-canaries-") as directory:
        stack = ExperimentingStack(Path(directory))
        try:
            stack.start()
            runs: tuple[tuple[Any, tuple[Any, ...], str | None], ...] = (
                (roll_back, (FAILING, ERRORS), None),
                (roll_back, (SLOW, MEDIAN), None),
                (roll_back, (SLOW, TAIL), None),
                (climb, (ramp,), "treatment"),
                (climb_without_leader, (ramp,), "treatment"),
            )
            for run, what, winner in runs:
                canary = run(stack, *what, given.rate)
                print(canary, flush=True)
                right = right and canary.document.get("winner") == winner and not canary.noticed
        finally:
            stack.stop()
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
