"""Print how often canaries are rolled back, rightly and wrongly, and how soon: `python -m tests.simulation.canaries`.

Each run is one canary of two equal arms with four guardrails on a ramp of 1, 10 and 50 %, watched every second through
the real register, `look` and `decide`. Requests come as a Poisson process; latencies are lognormal, scores Beta.
"""

import argparse
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import repeat
from typing import Any, Final

import numpy as np
from scipy import stats

from experiments import State
from experiments.canary import (
    BINS_MAX,
    SCORE_BINS_PER_UNIT,
    SCORE_SCALE,
    ArmCounts,
    bin_edge_ms,
    decide,
    look,
)
from experiments.guardrails import ALPHA
from experiments.register import Register, put

LATENCY_MEDIAN_MS: Final = 20.0
LATENCY_SIGMA: Final = 0.5
"""Of the logarithm: the 99th percentile is 3.2 times the median."""

STEPS_BP: Final = (100, 1_000, 5_000)


@dataclass(frozen=True)
class Arm:
    """How one arm's requests go. slowness: a factor on every latency. score: the second parameter of Beta(2, ·)."""

    error_rate: float = 0.01
    fallback_rate: float = 0.01
    slowness: float = 1.0
    score: float = 5.0


@dataclass(frozen=True)
class Canary:
    """What is simulated. allowances: of error rate, 99th percentile (relative), fallback rate and score drift."""

    control: Arm = field(default_factory=Arm)
    treatment: Arm = field(default_factory=Arm)
    allowances: tuple[float, float, float, float] = (0.01, 0.25, 0.01, 0.1)
    requests_per_s: float = 1_000.0
    seconds: int = 600
    hold_s: int = 120
    promote: bool = False
    look_every_s: int = 1

    def document(self) -> dict[str, Any]:
        """Return the experiment's document."""
        kinds = ("max_abs_increase", "max_rel_increase", "max_abs_increase", "max_abs_increase")
        metrics = ("error_rate", "p99_ms", "fallback_rate", "score_drift")
        return {
            "experiment": "canary",
            "model": "m",
            "unit": "user",
            "state": "running",
            "variants": [
                {"name": "control", "version": "1", "bp": 5_000},
                {"name": "treatment", "version": "2", "bp": 5_000},
            ],
            "guardrails": [
                {"metric": metric, kind: allowance}
                for metric, kind, allowance in zip(metrics, kinds, self.allowances, strict=True)
            ],
            "ramp": {"steps_bp": list(STEPS_BP), "hold_s": self.hold_s, "promote": self.promote},
        }


@dataclass(frozen=True)
class Ending:
    """How one canary went: rolled back, promoted, or neither. requests: to the treatment."""

    what: str
    metric: str
    after_s: int
    requests: int
    enrol_bp: int


def simulate(canary: Canary, seed: int) -> Ending:
    """Run one canary to its end, or for its time."""
    chance = np.random.default_rng(seed)
    register = put(Register(), canary.document(), 0).register
    counts: dict[int, dict[str, ArmCounts]] = {}
    for second in range(1, canary.seconds + 1):
        entry = register.entries["canary"]
        enrol_bp = entry.experiment.enrol_bp
        arms = counts.setdefault(enrol_bp, {"control": ArmCounts(), "treatment": ArmCounts()})
        for name, behaviour in (("control", canary.control), ("treatment", canary.treatment)):
            arms[name].add(_served(chance, behaviour, canary.requests_per_s * enrol_bp / 10_000 / 2))
        if second % canary.look_every_s:
            continue
        findings = look(entry.experiment, counts)
        decision = decide(entry, counts, findings, second * 1_000_000)
        if decision is None:
            continue
        register = put(register, decision.document, second * 1_000_000).register
        if register.entries["canary"].experiment.state is not State.RUNNING:
            what, _, why = decision.reason.partition(":")
            metric = why.split()[0] if what == "rolled back" else ""
            return Ending(what, metric, second, _requests(counts), enrol_bp)
    return Ending("neither", "", canary.seconds, _requests(counts), register.entries["canary"].experiment.enrol_bp)


def simulate_many(canary: Canary, runs: int, seed: int, processes: int = 1) -> list[Ending]:
    """Run canaries that differ only in chance."""
    seeds = range(seed, seed + runs)
    if processes == 1:
        return [simulate(canary, each) for each in seeds]
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(simulate, repeat(canary), seeds, chunksize=max(1, runs // (4 * processes))))


def _served(chance: np.random.Generator, arm: Arm, rate: float) -> ArmCounts:
    requests = int(chance.poisson(rate))
    errors = int(chance.binomial(requests, arm.error_rate))
    return ArmCounts(
        requests=requests,
        errors=errors,
        fallbacks=int(chance.binomial(requests, arm.fallback_rate)),
        latency=_binned(chance.multinomial(requests, _latency_shares(arm.slowness)), 0),
        scores=_binned(chance.multinomial(requests - errors, _score_shares(arm.score)), 0),
    )


def _binned(counts: Any, first: int) -> dict[int, int]:
    found = np.nonzero(counts)[0]
    return dict(zip((found + first).tolist(), counts[found].tolist(), strict=True))


@cache
def _latency_shares(slowness: float) -> Any:
    edges = [bin_edge_ms(index) for index in range(260)]
    shares = np.diff(stats.lognorm.cdf(edges, LATENCY_SIGMA, scale=LATENCY_MEDIAN_MS * slowness), prepend=0)
    return shares / shares.sum()


@cache
def _score_shares(parameter: float) -> Any:
    edges = SCORE_SCALE * np.sinh(np.arange(BINS_MAX) / SCORE_BINS_PER_UNIT)
    shares = np.diff(stats.beta.cdf(edges[edges < 2], 2, parameter))
    return shares / shares.sum()


def _requests(counts: dict[int, dict[str, ArmCounts]]) -> int:
    return sum(arms["treatment"].requests for arms in counts.values())


AS_DOCUMENTED: Final = Canary()
TWO_TENTHS: Final = Arm(error_rate=0.002)
SCENARIOS: Final = {
    "equal arms, 1 % errors": AS_DOCUMENTED,
    "equal arms, nothing allowed": replace(AS_DOCUMENTED, allowances=(0.0, 0.0, 0.0, 0.0)),
    "equal arms, 100 requests a second": replace(AS_DOCUMENTED, requests_per_s=100.0),
    "healthy, 0.2 % errors, to be promoted": replace(
        AS_DOCUMENTED, control=TWO_TENTHS, treatment=TWO_TENTHS, promote=True
    ),
    "errors 3 % beside 0.2 %": replace(AS_DOCUMENTED, control=TWO_TENTHS, treatment=Arm(error_rate=0.03)),
    "errors 100 % beside 0.2 %": replace(AS_DOCUMENTED, control=TWO_TENTHS, treatment=Arm(error_rate=1.0)),
    "latency doubled": replace(AS_DOCUMENTED, treatment=Arm(slowness=2.0)),
    "latency half as long again": replace(AS_DOCUMENTED, treatment=Arm(slowness=1.5)),
    "fallbacks 5 % beside 1 %": replace(AS_DOCUMENTED, treatment=Arm(fallback_rate=0.05)),
    "scores a quarter higher": replace(AS_DOCUMENTED, treatment=Arm(score=3.6)),
}
HEAD: Final = """| canary | rolled back | by | promoted | seconds (median) | (p90) | treatment's requests | (p90) |
| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |"""


def lines(runs: int, seed: int, processes: int, names: Sequence[str]) -> Iterator[str]:
    """Simulate, and yield the table line by line."""
    yield (
        f"{runs} canaries each, of {AS_DOCUMENTED.seconds} s, {AS_DOCUMENTED.requests_per_s:g} requests a second, "
        f"steps of {', '.join(f'{step / 100:g} %' for step in STEPS_BP)}, each held for {AS_DOCUMENTED.hold_s} s; "
        f"alpha {ALPHA:g} for all four guardrails together\n\n{HEAD}"
    )
    for name in names:
        yield _row(name, simulate_many(SCENARIOS[name], runs, seed, processes))


def _row(name: str, endings: Sequence[Ending]) -> str:
    back = [ending for ending in endings if ending.what == "rolled back"]
    promoted = [ending for ending in endings if ending.what == "promoted"]
    metrics = ", ".join(metric for metric, _ in Counter(ending.metric for ending in back).most_common())
    times = [ending.after_s for ending in back or promoted]
    requests = [ending.requests for ending in back or promoted]
    shares = [f"{len(some) / len(endings):.1%}" for some in (back, promoted)]
    return f"| {name} | {shares[0]} | {metrics} | {shares[1]} | {_spread(times)} | {_spread(requests)} |"


def _spread(values: Sequence[int]) -> str:
    if not values:
        return " | "
    ninetieth = sorted(values)[min(len(values) - 1, int(0.9 * len(values)))]
    return f"{statistics.median(values):,.0f} | {ninetieth:,}"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.canaries", description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", choices=sorted(SCENARIOS), action="append", help="may be repeated; all by default")
    arguments = parser.parse_args()
    for line in lines(arguments.runs, arguments.seed, arguments.processes, arguments.only or list(SCENARIOS)):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
