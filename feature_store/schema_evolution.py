"""What applying a declared view to a registered one means: new, changed, unchanged, or refused. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from feature_store.errors import FeatureStoreError
from feature_store.feature_views import FeatureView
from feature_store.registered_view import NearCachePolicy, RegisteredView
from feature_store.row_layout import SCHEMA_ID_MAX, Column, RowLayout


@dataclass(frozen=True, slots=True)
class Conflict:
    """One change that stored rows cannot follow. `feature` is empty where it is the view's own."""

    view: str
    feature: str
    problem: str
    old: str
    new: str

    def __str__(self) -> str:
        where = f"{self.view}:{self.feature}" if self.feature else self.view
        return f"{where}: {self.problem}: registered {self.old}, declared {self.new}"


class IncompatibleViews(FeatureStoreError):
    """Declared views that cannot replace the registered ones. Nothing was applied; `conflicts` has every reason."""

    def __init__(self, conflicts: tuple[Conflict, ...]) -> None:
        super().__init__("\n".join(map(str, conflicts)))
        self.conflicts = conflicts


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewChange:
    """What applying one view does. `columns` is its whole schema after it, under `schema_id`."""

    view: str
    kind: Literal["new", "changed", "unchanged"]
    details: tuple[str, ...]
    schema_id: int
    revision: int
    columns: tuple[Column, ...]
    defaults: Mapping[str, object]


def plan_change(name: str, declared: FeatureView, registered: RegisteredView | None) -> ViewChange:
    """Compare a declared view with the registered one. Raises IncompatibleViews.

    Columns are only ever added, after the registered ones, under a new schema id. Entity, dtype and length stay, and no
    feature leaves, so that no name is ever used again. `max_age`, defaults, descriptions and
    `near_cache` may change.
    """
    defaults = {f.name: f.filled_default for f in declared.features if f.filled_default is not None}
    declared_columns = {feature.name: feature.column for feature in declared.features}
    if registered is None:
        return ViewChange(
            view=name,
            kind="new",
            details=(f"{len(declared_columns)} features of {declared.entity}",),
            schema_id=1,
            revision=1,
            columns=tuple(declared_columns.values()),
            defaults=defaults,
        )
    known = {column.name: column for column in columns_of(registered.current)}
    conflicts = _conflicts(name, declared, declared_columns, registered, known)
    if conflicts:
        raise IncompatibleViews(conflicts)
    added = tuple(column for column in declared_columns.values() if column.name not in known)
    details = (*_added_details(added), *_setting_details(declared, defaults, registered, known))
    return ViewChange(
        view=name,
        kind="changed" if details else "unchanged",
        details=details,
        schema_id=registered.current_schema_id + bool(added),
        revision=registered.revision + bool(details),
        columns=(*known.values(), *added),
        defaults=defaults,
    )


def columns_of(layout: RowLayout) -> tuple[Column, ...]:
    """The columns of a layout without their places, in declared order."""
    return tuple(Column(column.name, column.dtype, column.length) for column in layout.columns)


def _conflicts(
    name: str,
    declared: FeatureView,
    columns: Mapping[str, Column],
    registered: RegisteredView,
    known: Mapping[str, Column],
) -> tuple[Conflict, ...]:
    found = []
    if declared.entity != registered.entity:
        found.append(Conflict(name, "", "the entity may not change", registered.entity, declared.entity))
    for feature, old in known.items():
        new = columns.get(feature)
        if new is None:
            found.append(Conflict(name, feature, "a feature may not be removed", old.type_name, "nothing"))
        elif new != old:
            problem = "the type may not change, nor a name be used again: declare a new name"
            found.append(Conflict(name, feature, problem, old.type_name, new.type_name))
    if registered.current_schema_id == SCHEMA_ID_MAX and columns.keys() - known.keys():
        found.append(Conflict(name, "", "there are no schema ids left", str(SCHEMA_ID_MAX), "one more"))
    return tuple(found)


def _added_details(added: tuple[Column, ...]) -> list[str]:
    return [f"new feature {column.name} {column.type_name}" for column in added]


def _setting_details(
    declared: FeatureView, defaults: Mapping[str, object], registered: RegisteredView, known: Mapping[str, Column]
) -> list[str]:
    details = []
    if declared.max_age_us != registered.max_age_us:
        details.append(f"max_age {registered.max_age_us // 1_000_000} s → {declared.max_age_us // 1_000_000} s")
    for feature in known:
        old, new = registered.defaults.get(feature), defaults.get(feature)
        if old != new:
            details.append(f"default of {feature} {_shown(old)} → {_shown(new)}")
    if declared.description != registered.description:
        details.append("description")
    if declared.near_cache_policy != registered.near_cache:
        details.append(f"near_cache {_ages(registered.near_cache)} → {_ages(declared.near_cache_policy)}")
    return details


def _ages(policy: NearCachePolicy) -> str:
    if not policy:
        return "off"
    return f"{policy.max_age_us // 1_000} ms, {policy.stale_if_unavailable_us // 1_000} ms if unavailable"


def _shown(default: object) -> str:
    text = "none" if default is None else repr(default)
    return text if len(text) <= 40 else text[:39] + "…"
