"""A feature view as the registry knows it: what a reader needs to make sense of any row ever written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from feature_store.row_layout import RowLayout


class NearCachePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a reader may do with rows of a view that it remembers, in µs since they were read. 0: nothing."""

    max_age_us: int = 0
    """A row this young is served without asking Redis."""

    stale_if_unavailable_us: int = 0
    """A row this young is served where Redis does not answer."""

    def __bool__(self) -> bool:
        return bool(self.max_age_us or self.stale_if_unavailable_us)


NEAR_CACHE_OFF: Final = NearCachePolicy()


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
    near_cache: NearCachePolicy = NEAR_CACHE_OFF

    @property
    def current(self) -> RowLayout:
        """The layout under which rows are written now; it has every feature of every earlier one."""
        return self.schemas[self.current_schema_id]
