"""Who gets which variant: definitions and assignment. Pure code over the standard library."""

from experiments.assignment import UNASSIGNED, Assignment, Reason, assign, shadow_version
from experiments.definition import Experiment, Hash, State, parse_experiment
from experiments.errors import ExperimentError
from experiments.variants import Variant

__all__ = [
    "UNASSIGNED",
    "Assignment",
    "Experiment",
    "ExperimentError",
    "Hash",
    "Reason",
    "State",
    "Variant",
    "assign",
    "parse_experiment",
    "shadow_version",
]
