"""Print what each mechanism of the dispatch is worth: `python -m tests.simulation`."""

import argparse
import sys
from collections.abc import Iterator

from gateway.dispatch.dispatch_rules import DispatchRules
from tests.simulation.fleet import Outcome, Scenario, simulate
from tests.simulation.scenarios import bad_fleet, brown_out

NOTHING = DispatchRules(eject=False, balance=False, retry=False, hedge=False)
HEAD = """| with | p50 ms | p99 ms | p99.9 ms | errors | late | sent again |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |"""

FLEET = (
    ("random", NOTHING, False),
    ("least outstanding of all", DispatchRules(eject=False, retry=False, hedge=False), True),
    ("two choices by peak EWMA", DispatchRules(eject=False, retry=False, hedge=False), False),
    ("least outstanding, ejection", DispatchRules(retry=False, hedge=False), True),
    ("two choices, ejection", DispatchRules(retry=False, hedge=False), False),
    ("two choices, ejection, retries", DispatchRules(hedge=False), False),
    ("two choices, ejection, hedging", DispatchRules(retry=False), False),
    ("all", DispatchRules(), False),
)
BROWN_OUT = (
    ("no retries, no hedging", DispatchRules(retry=False, hedge=False)),
    ("all", DispatchRules()),
    ("all but the budget", DispatchRules(budget=False)),
)


def lines(replicas: int, duration_s: float, seed: int) -> Iterator[str]:
    """Simulate, and yield the tables line by line."""
    fleet = bad_fleet(replicas, load=0.2, duration_s=duration_s, seed=seed)
    yield f"{replicas} replicas, some of them bad, {_told(fleet)}\n\n{HEAD}"
    for name, rules, full_scan in FLEET:
        yield _row(name, simulate(fleet, rules, full_scan=full_scan))
    for slowness, failing in ((2.5, 0.0), (2.0, 0.9)):
        brown = brown_out(
            max(4, replicas // 5), load=0.35, slowness=slowness, failing=failing, duration_s=duration_s, seed=seed
        )
        share = f", and {failing:.0%} of the batches fail" if failing else ""
        yield (
            f"\n{len(brown.behaviours)} replicas; for a quarter of the time all of them take {slowness:g} times as long"
            f"{share}; {_told(brown)}\n\n{HEAD}"
        )
        for name, rules in BROWN_OUT:
            yield _row(name, simulate(brown, rules))


def _told(scenario: Scenario) -> str:
    return (
        f"{scenario.requests_per_s:,.0f} requests a second for {scenario.duration_s:g} s, "
        f"deadline {scenario.deadline_s * 1000:g} ms:"
    )


def _row(name: str, outcome: Outcome) -> str:
    quantiles = [f"{outcome.quantile_s(quantile) * 1000:.0f}" for quantile in (0.5, 0.99, 0.999)]
    shares = [outcome.errors / outcome.requests, outcome.late / outcome.requests, outcome.extra_share]
    return f"| {name} | {' | '.join(quantiles)} | {' | '.join(f'{share:.2%}' for share in shares)} |"


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--replicas", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=40.0, help="simulated, for each line")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    for line in lines(arguments.replicas, arguments.seconds, arguments.seed):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
