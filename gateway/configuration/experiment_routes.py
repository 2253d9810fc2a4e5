"""Whether an experiment fits the routes: its model, its unit, and the versions that it draws."""

from collections.abc import Mapping

from experiments import Experiment, ExperimentError, State
from gateway.routes_file import ModelRoute


def refuse_unrouted(experiment: Experiment, routes: Mapping[str, ModelRoute]) -> None:
    """Refuse a model without a route, another unit than the route's and, where it runs, a version that is not served.

    A draft may be of a version that is still to come, a concluded one of a version that is gone. Raises
    ExperimentError.
    """
    route = routes.get(experiment.model)
    if route is None:
        raise ExperimentError("model", f"{experiment.model!r} has no route; there are: {', '.join(routes)}")
    refuse_other_unit(experiment, route)
    known = ", ".join(route.versions)
    if experiment.state is State.RUNNING:
        for index, variant in enumerate(experiment.variants):
            if variant.version not in route.versions:
                raise ExperimentError(
                    f"variants[{index}].version", f"{variant.version!r} is not routed; there are: {known}"
                )
        if experiment.shadow is not None and experiment.shadow.version not in route.versions:
            raise ExperimentError("shadow.version", f"{experiment.shadow.version!r} is not routed; there are: {known}")
    elif experiment.winner is not None and experiment.winner.version not in route.versions:
        raise ExperimentError("winner", f"its version {experiment.winner.version!r} is not routed; there are: {known}")


def refuse_other_unit(experiment: Experiment, route: ModelRoute) -> None:
    """Refuse an experiment that splits by something else than its model's route. Raises ExperimentError."""
    if route.unit is not None and route.unit != experiment.unit:
        raise ExperimentError(
            "unit", f"the route of {experiment.model!r} splits by {route.unit!r}, not {experiment.unit!r}"
        )
