"""Which columns of a table are features and which are scores, by their names."""

from collections.abc import Sequence
from typing import Final

from analysis.errors import UnusableColumn
from contracts.prediction_record import ENTITY_PREFIX, EVENT_TIME_PREFIX, FEATURE_PREFIX, OUTPUT_PREFIX, STATUS_PREFIX

SAMPLE_WEIGHT: Final = "sample_weight"

_NOT_FEATURES: Final = (ENTITY_PREFIX, EVENT_TIME_PREFIX, OUTPUT_PREFIX, STATUS_PREFIX)


def feature_columns(columns: Sequence[str]) -> dict[str, str]:
    """Map `view.feature` to the column that holds it, in the table's order.

    A prediction log calls it `f.view.feature`, a training table may leave the prefix off. Raises UnusableColumn where
    one feature has two columns, or where no column is a feature.
    """
    found: dict[str, str] = {}
    for column in columns:
        name = _feature_name(column)
        if name is None:
            continue
        if name in found:
            raise UnusableColumn(column, f"feature {name!r} is in column {found[name]!r} already")
        found[name] = column
    if not found:
        shown = ", ".join(map(repr, columns[:8])) + (", …" if len(columns) > 8 else "")
        raise UnusableColumn("view.feature", f"no column has a feature's name. Found: {shown}")
    return found


def score_columns(columns: Sequence[str]) -> dict[str, str]:
    """Map the output's name to the column `y.{output}` that holds it."""
    return {name.removeprefix(OUTPUT_PREFIX): name for name in columns if name.startswith(OUTPUT_PREFIX)}


def status_columns(columns: Sequence[str]) -> dict[str, str]:
    """Map the view's name to the column `status.{view}` that says how its row was found."""
    return {name.removeprefix(STATUS_PREFIX): name for name in columns if name.startswith(STATUS_PREFIX)}


def _feature_name(column: str) -> str | None:
    bare = column.removeprefix(FEATURE_PREFIX)
    if bare != column and "." in bare:
        return bare
    return column if "." in column and not column.startswith(_NOT_FEATURES) else None
