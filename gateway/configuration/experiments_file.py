"""Experiments from YAML: one file, or a directory of them, each document one experiment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from experiments import Experiment, ExperimentError, parse_experiment
from experiments.conflicts import refuse_conflicts
from gateway.configuration.experiment_routes import refuse_unrouted
from gateway.routes_file import ModelRoute
from settings.yaml_file import ConfigurationError, line_of, read_yaml_documents

FILES_MAX: Final = 1_000


def experiment_files(path: Path | None) -> list[Path]:
    """List the files that experiments are read from. Raises ConfigurationError where they are too many."""
    if path is None:
        return []
    files = sorted([*path.glob("*.yaml"), *path.glob("*.yml")]) if path.is_dir() else [path]
    if len(files) > FILES_MAX:
        raise ConfigurationError(path, 1, f"{len(files)} files; at most {FILES_MAX} are read")
    return files


def read_experiments(path: Path | None, routes: Mapping[str, ModelRoute]) -> dict[str, tuple[Experiment, ...]]:
    """Read the experiments of each model, running or not, in the order of their names.

    Raises ConfigurationError with file and line: for a wrong document, a conflict between two, a model that the routes
    do not have, or a version, where the experiment is running.
    """
    found: list[Experiment] = []
    for file in experiment_files(path):
        for index, document in enumerate(read_yaml_documents(file, dict[str, Any])):
            try:
                experiment = parse_experiment(document)
                refuse_unrouted(experiment, routes)
                refuse_conflicts([*found, experiment])
            except ExperimentError as error:
                keys = [int(k) if k.isdigit() else k for k in error.key.replace("[", ".").replace("]", "").split(".")]
                raise ConfigurationError(file, line_of(file, *keys, document=index), str(error)) from error
            found.append(experiment)
    by_model: dict[str, tuple[Experiment, ...]] = {}
    for experiment in sorted(found, key=lambda e: e.name):
        by_model[experiment.model] = (*by_model.get(experiment.model, ()), experiment)
    return by_model
