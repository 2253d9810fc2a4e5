"""Who gets which variant: definitions and assignment. Pure code over the standard library."""

from experiments.assignment import UNASSIGNED, Assignment, Reason, assign
from experiments.definition import Experiment, ExperimentError, State, Variant, parse_experiment

__all__ = [
    "UNASSIGNED",
    "Assignment",
    "Experiment",
    "ExperimentError",
    "Reason",
    "State",
    "Variant",
    "assign",
    "parse_experiment",
]
