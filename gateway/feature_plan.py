"""The plan of one model version: from stored rows and request features straight to the bytes of its input tensors.

Made once per (manifest, registered views). Each input is a list of runs: stretches of columns that come from one view,
or from the request. A stored run whose type is the wanted one is a slice of the packed row, so that a row of the batch
is the join of a few slices, and the batch the join of its rows: no value is decoded on the way.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from contracts.manifest import REQUEST_SOURCE, Input, feature_reference
from feature_store import (
    FeatureStatus,
    FeatureStoreError,
    Projection,
    RegisteredView,
    Wanted,
    WrongFeatureValue,
    pack_value,
    row_key_prefix,
)
from gateway.errors import MissingFeature, WrongFeatureType


class PlanError(ValueError):
    """The manifest asks for what the feature store or the route does not have."""


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """One feature view as this version reads it."""

    name: str
    entity: str
    key_prefix: bytes
    projection: Projection
    fail_when_missing: bool
    degraded_by_status: tuple[str, ...]
    """By status code: what to say in `degraded`, or nothing."""

    fresh_for_s: float = 0.0
    """How long a remembered row is served without reading it again."""

    stale_for_s: float = 0.0
    """How long a remembered row is served where it cannot be read again."""

    @property
    def near_cached(self) -> bool:
        """Whether rows of the view are remembered."""
        return bool(self.fresh_for_s or self.stale_for_s)


@dataclass(frozen=True, slots=True)
class InputPlan:
    """One input tensor: its name, datatype and columns, and in which order the runs make a row."""

    name: str
    datatype: str
    columns: int | None
    """Columns of a `[-1, n]` input; None for `[-1]`."""

    order: tuple[tuple[int, int], ...]
    """(source, run): source i is view i; the source after the last view is the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturePlan:
    """Everything that turns a request into one version's input bytes, and that the log needs to read them back."""

    views: tuple[ViewPlan, ...]
    inputs: tuple[InputPlan, ...]
    request_runs: tuple[tuple[Wanted, ...], ...]
    request_features: Mapping[str, str]
    """Name → datatype of each feature that the caller must send."""

    overridable: Mapping[str, tuple[int, str]]
    """`view:feature` → (index of its view, feature), for those that the route lets a request replace."""

    columns: tuple[tuple[tuple[str, str], ...], ...]
    """By input: (`view.feature`, datatype) of each column, as the log names them."""

    entities: frozenset[str] = field(default=frozenset())
    near_cached: bool = False
    """Whether rows of some view are remembered."""

    def request_pieces(self, values: Mapping[str, Any], where: str) -> tuple[bytes, ...]:
        """Pack the caller's features, run by run. Raises MissingFeature or WrongFeatureType, which name the field."""
        pieces = []
        for run in self.request_runs:
            parts = []
            for wanted in run:
                if wanted.feature not in values:
                    raise MissingFeature(
                        f"the model needs the request feature {wanted.feature!r} ({wanted.datatype})",
                        f"{where}.{wanted.feature}",
                    )
                try:
                    parts.append(pack_value(wanted.feature, values[wanted.feature], wanted.datatype))
                except WrongFeatureValue as error:
                    raise WrongFeatureType(str(error), f"{where}.{wanted.feature}") from error
            pieces.append(b"".join(parts))
        return tuple(pieces)


def plan_features(
    model_inputs: Sequence[Input],
    views: Mapping[str, RegisteredView],
    on_missing: Mapping[str, str],
    request_overrides: Iterable[str],
) -> FeaturePlan:
    """Plan the features that fill a version's inputs. Raises PlanError: what the store or the manifest lacks."""
    names: list[str] = []
    runs: dict[str, list[list[Wanted]]] = {}
    inputs: list[InputPlan] = []
    columns: list[tuple[tuple[str, str], ...]] = []
    orders: list[list[tuple[str, int]]] = []
    for model_input in model_inputs:
        if not model_input.features:
            raise PlanError(f"input {model_input.name!r} lists no features, while other inputs do: rows cannot be made")
        order: list[tuple[str, int]] = []
        listed: list[tuple[str, str]] = []
        previous = ""
        for reference in model_input.features:
            view, feature = feature_reference(reference)
            width = _width(views, view, feature)
            if view not in runs:
                runs[view] = []
                names.append(view)
            if view != previous:
                runs[view].append([])
                order.append((view, len(runs[view]) - 1))
            runs[view][-1].append(Wanted(feature, model_input.dtype))
            previous = view
            listed += (
                [(f"{view}.{feature}", model_input.dtype)]
                if width is None
                else [(f"{view}.{feature}.{i}", model_input.dtype) for i in range(width)]
            )
        width_declared = _declared_columns(model_input.name, model_input.shape)
        if len(listed) != (width_declared or 1):
            raise PlanError(
                f"input {model_input.name!r} has shape {list(model_input.shape)}, its features make "
                f"{len(listed)} columns"
            )
        columns.append(tuple(listed))
        orders.append(order)
        inputs.append(InputPlan(model_input.name, model_input.dtype, width_declared, ()))
    stored = [name for name in names if name != REQUEST_SOURCE]
    source = {name: index for index, name in enumerate([*stored, REQUEST_SOURCE])}
    request_runs = tuple(tuple(run) for run in runs.get(REQUEST_SOURCE, []))
    for wanted in chain.from_iterable(request_runs):
        _check_datatype(wanted)
    view_plans = tuple(_view_plan(views[name], runs[name], on_missing.get(name, "default")) for name in stored)
    return FeaturePlan(
        views=view_plans,
        inputs=tuple(
            InputPlan(plan.name, plan.datatype, plan.columns, tuple((source[view], run) for view, run in order))
            for plan, order in zip(inputs, orders, strict=True)
        ),
        request_runs=request_runs,
        request_features={wanted.feature: wanted.datatype for run in request_runs for wanted in run},
        overridable=_overridable(request_overrides, stored, runs),
        columns=tuple(columns),
        entities=frozenset(view.entity for view in view_plans),
        near_cached=any(view.near_cached for view in view_plans),
    )


def _view_plan(view: RegisteredView, runs: list[list[Wanted]], on_missing: str) -> ViewPlan:
    try:
        projection = Projection(view, runs)
    except (ValueError, FeatureStoreError) as error:
        raise PlanError(str(error)) from error
    degraded = [""] * len(FeatureStatus)
    degraded[FeatureStatus.STALE] = f"feature_stale:{view.name}"
    degraded[FeatureStatus.MISSING] = f"feature_default:{view.name}"
    return ViewPlan(
        view.name,
        view.entity,
        row_key_prefix(view.name),
        projection,
        on_missing == "fail",
        tuple(degraded),
        fresh_for_s=view.near_cache.max_age_us / 1e6,
        stale_for_s=view.near_cache.stale_if_unavailable_us / 1e6,
    )


def _check_datatype(wanted: Wanted) -> None:
    try:
        pack_value(wanted.feature, None, wanted.datatype)
    except WrongFeatureValue:
        return  # None is no value of any datatype: what matters is that the datatype is known
    except ValueError as error:
        raise PlanError(f"request feature {wanted.feature!r}: {error}") from error


def _width(views: Mapping[str, RegisteredView], view: str, feature: str) -> int | None:
    if view == REQUEST_SOURCE:
        return None
    if view not in views:
        known = ", ".join(sorted(views)) or "none"
        raise PlanError(f"feature view {view!r} is not registered in the feature store; registered: {known}")
    return next((column.length for column in views[view].current.columns if column.name == feature), None)


def _declared_columns(name: str, shape: tuple[int, ...]) -> int | None:
    if len(shape) > 2 or any(d < 1 for d in shape[1:]):
        raise PlanError(f"input {name!r} has shape {list(shape)}; features can fill [-1] and [-1, columns]")
    return shape[1] if len(shape) == 2 else None


def _overridable(
    references: Iterable[str], stored: list[str], runs: Mapping[str, list[list[Wanted]]]
) -> dict[str, tuple[int, str]]:
    found = {}
    for reference in references:
        view, _, feature = reference.partition(":")
        if view in stored and any(wanted.feature == feature for run in runs[view] for wanted in run):
            found[reference] = (stored.index(view), feature)
    return found
