"""Documents for the tests of the register, and registers of them."""

from typing import Any

from experiments import Experiment
from experiments.register import Register, kill, put

DOCUMENT: dict[str, Any] = {
    "experiment": "e",
    "model": "m",
    "unit": "user",
    "state": "running",
    "variants": [{"name": "control", "version": "1", "bp": 5_000}, {"name": "treatment", "version": "2", "bp": 5_000}],
}
WEIGHTS = [{"name": "control", "version": "1", "bp": 6_000}, {"name": "treatment", "version": "2", "bp": 4_000}]
THREE = [
    *WEIGHTS[:1],
    {"name": "treatment", "version": "2", "bp": 3_000},
    {"name": "other", "version": "3", "bp": 1_000},
]


def changed(register: Register, *documents: dict[str, Any], now_us: int = 0) -> Register:
    for number, document in enumerate(documents):
        register = put(register, DOCUMENT | document, now_us + number).register
    return register


def made(register: Register, name: str = "e") -> Experiment:
    return register.entries[name].experiment


def golden_register() -> Register:
    """Make what the golden file holds."""
    whole = {
        "experiment": "diagnosis-2026q4",
        "model": "diagnosis",
        "unit": "patient",
        "salt": "7f3c",
        "layer": {"name": "page", "slots": [[0, 5_000], [6_000, 7_000]]},
        "holdout": {"name": "holdout-2026", "bp": 500},
        "enrol_bp": 100,
        "where": "age >= 18 and country in ['JP', 'DE']",
        "overrides": {"p7": "treatment", "東京-7": "control"},
        "shadow": {"version": "3", "sample_bp": 500},
        "guardrails": [
            {"metric": "error_rate", "max_abs_increase": 0.01, "action": "rollback"},
            {"metric": "p99_ms", "max_rel_increase": 0.25, "action": "alert"},
        ],
        "ramp": {"steps_bp": [100, 1_000, 5_000], "hold_s": 600, "requests_min": 500, "promote": True},
        "metrics": {"primary": "correct"},
    }
    growthbook = {
        "experiment": "button",
        "model": "shop",
        "state": "paused",
        "hash": "growthbook-v2",
        "salt": "button-seed",
    }
    eppo = {
        "experiment": "checkout",
        "model": "shop",
        "state": "concluded",
        "hash": "eppo",
        "salt": "c",
        "salts": {"enrol": "traffic é", "split": "split é"},
        "winner": "treatment",
    }
    register = changed(Register(), whole, growthbook, eppo, now_us=1_700_000_000_000_000)
    register = put(
        register,
        {
            **made(register, "diagnosis-2026q4").document,
            "variants": [*THREE[:1], {"name": "treatment", "version": "2", "bp": 4_000}],
            "enrol_bp": 1_000,
        },
        1_700_000_600_000_000,
    ).register
    return kill(register, "shop", on=True).register
