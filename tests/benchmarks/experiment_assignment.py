"""Prints how many units one process assigns in a second, by hash: `python tests/benchmarks/experiment_assignment.py`.

Each figure is the best of several rounds over 20,000 units of 13 to 17 characters, with what a gateway gives `assign`:
the experiments of one model, a unit, and the request's attributes.
"""

import sys
import timeit
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from experiments import Experiment, Hash, assign, parse_experiment

GOAL_PER_S = 100_000
ROUNDS = 7
UNITS = [f"user-{number:08d}" + "x" * (number % 5) for number in range(20_000)]
ATTRIBUTES = {"age": 34, "country": "JP", "tier": "gold"}
WHERE = "age >= 18 and country in ['JP', 'DE']"
VARIANTS = [{"name": "control", "version": "1", "bp": 9_000}, {"name": "treatment", "version": "2", "bp": 1_000}]


def experiment(number: int, hash_: Hash, **changes: Any) -> Experiment:
    fixed = {
        "experiment": f"experiment-{number}",
        "model": "m",
        "unit": "user",
        "state": "running",
        "hash": hash_,
        "salt": f"salt-2026-q4-{number}",
        "variants": VARIANTS,
    }
    return parse_experiment(fixed | changes)


def slots(number: int, count: int) -> dict[str, Any]:
    width = 10_000 // count
    return {"name": "page", "slots": [[number * width, number * width + width]]}


def cases(hash_: Hash) -> dict[str, tuple[Experiment, ...]]:
    return {
        "one": (experiment(0, hash_),),
        "one, 1 % enrolled": (experiment(0, hash_, enrol_bp=100),),
        "one, with a `where`": (experiment(0, hash_, where=WHERE),),
        "one, with a holdout and a layer": (experiment(0, hash_, holdout={"name": "h", "bp": 500}, layer=slots(0, 2)),),
        "one with 10,000 overrides": (
            experiment(0, hash_, overrides={f"tester-{number}": "treatment" for number in range(10_000)}),
        ),
        "five that share a layer": tuple(experiment(n, hash_, layer=slots(n, 5)) for n in range(5)),
        "five that share a layer, each with a `where` and a holdout": tuple(
            experiment(n, hash_, layer=slots(n, 5), where=WHERE, holdout={"name": "h", "bp": 500}) for n in range(5)
        ),
        "five in layers of their own, of which the last enrols": tuple(
            experiment(n, hash_, layer={"name": f"l{n}"}, enrol_bp=10_000 if n == 4 else 0) for n in range(5)
        ),
    }


def per_second(experiments: tuple[Experiment, ...]) -> float:
    def all_units() -> None:
        for unit in UNITS:
            assign(experiments, unit, ATTRIBUTES)

    return len(UNITS) / min(timeit.repeat(all_units, number=1, repeat=ROUNDS))


def main() -> int:
    print(f"assignments a second in one process; the goal is {GOAL_PER_S:,} with one experiment, whichever the hash\n")
    print(f"| experiments of the model | {' | '.join(Hash)} |\n| --- |{' ---: |' * len(Hash)}")
    found = {hash_: {name: per_second(made) for name, made in cases(hash_).items()} for hash_ in Hash}
    for name in found[Hash.V1]:
        print(f"| {name} | {' | '.join(f'{found[hash_][name]:,.0f}' for hash_ in Hash)} |")
    print(f"\nthe slowest with one experiment: {min(found[h]['one'] for h in Hash):,.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
