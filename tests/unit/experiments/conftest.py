from collections.abc import Callable
from typing import Any

import pytest

from experiments import Experiment, parse_experiment


@pytest.fixture
def document() -> dict[str, Any]:
    """A whole document, of which a test changes one part."""
    return {
        "experiment": "diagnosis-2026q4",
        "model": "diagnosis",
        "unit": "patient",
        "state": "running",
        "hash": "v1",
        "salt": "7f3c",
        "layer": {"name": "default", "slots": [[0, 10_000]]},
        "enrol_bp": 10_000,
        "where": "age >= 18",
        "variants": [
            {"name": "control", "version": "1", "bp": 9_000},
            {"name": "treatment", "version": "2", "bp": 1_000},
        ],
        "overrides": {"p7": "treatment"},
        "shadow": {"version": "3", "sample_bp": 500},
        "guardrails": [{"metric": "error_rate", "max_abs_increase": 0.01, "action": "rollback"}],
        "ramp": {"steps_bp": [100, 1_000], "hold_s": 600},
        "metrics": {"primary": "correct"},
    }


@pytest.fixture
def experiment() -> Callable[..., Experiment]:
    """Make a running experiment of two arms, 90 to 10, with what a test changes."""

    def make(**changes: Any) -> Experiment:
        return parse_experiment(
            {
                "experiment": "e",
                "model": "m",
                "unit": "user",
                "state": "running",
                "salt": "7f3c",
                "variants": [
                    {"name": "control", "version": "1", "bp": 9_000},
                    {"name": "treatment", "version": "2", "bp": 1_000},
                ],
            }
            | changes
        )

    return make
