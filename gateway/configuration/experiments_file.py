"""Experiments from YAML: one file, or a directory of them, each document one experiment."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from experiments import Experiment, ExperimentError, State, parse_experiment
from experiments.definition import NOT_ACTED_ON, refuse_conflicts
from gateway.routes_file import ModelRoute
from settings.yaml_file import ConfigurationError, line_of, read_yaml_documents

FILES_MAX: Final = 1_000

logger = logging.getLogger(__name__)


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
                _check_route(experiment, routes)
                refuse_conflicts([*found, experiment])
            except ExperimentError as error:
                keys = [int(k) if k.isdigit() else k for k in error.key.replace("[", ".").replace("]", "").split(".")]
                raise ConfigurationError(file, line_of(file, *keys, document=index), str(error)) from error
            found.append(experiment)
            idle = [key for key in NOT_ACTED_ON if key in document]
            if idle and experiment.state is State.RUNNING:
                logger.warning(
                    "the experiment asks for what this gateway does not do yet",
                    extra={"experiment": experiment.name, "keys": idle},
                )
    by_model: dict[str, tuple[Experiment, ...]] = {}
    for experiment in sorted(found, key=lambda e: e.name):
        by_model[experiment.model] = (*by_model.get(experiment.model, ()), experiment)
    return by_model


def _check_route(experiment: Experiment, routes: Mapping[str, ModelRoute]) -> None:
    route = routes.get(experiment.model)
    if route is None:
        raise ExperimentError("model", f"{experiment.model!r} has no route; there are: {', '.join(routes)}")
    if route.unit is not None and route.unit != experiment.unit:
        raise ExperimentError(
            "unit", f"the route of {experiment.model!r} splits by {route.unit!r}, not {experiment.unit!r}"
        )
    if experiment.state is not State.RUNNING:
        return  # a draft may be of a version that is still to come, a concluded one of a version that is gone
    for index, variant in enumerate(experiment.variants):
        if variant.version not in route.versions:
            known = ", ".join(route.versions)
            raise ExperimentError(
                f"variants[{index}].version", f"{variant.version!r} is not routed; there are: {known}"
            )
