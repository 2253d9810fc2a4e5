"""A feature view as the registry knows it: what a reader needs to make sense of any row ever written."""

from collections.abc import Mapping
from dataclasses import dataclass

from feature_store.row_layout import RowLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredView:
    """One view of the registry. `schemas` has every schema id ever given; `defaults` only features that declare one."""

    name: str
    entity: str
    max_age_us: int
    current_schema_id: int
    schemas: Mapping[int, RowLayout]
    defaults: Mapping[str, object]
    description: str = ""
    revision: int = 1

    @property
    def current(self) -> RowLayout:
        """The layout under which rows are written now; it has every feature of every earlier one."""
        return self.schemas[self.current_schema_id]
