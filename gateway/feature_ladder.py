"""Where stored rows come from: memory while they are young, Redis, memory where Redis fails, declared defaults."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Final, Protocol

from feature_store import FeatureStatus, FeatureStoreUnavailable, NearCache, PartlyUnread
from gateway.errors import FeaturesUnavailable
from gateway.feature_plan import ViewPlan

Rows = list[bytes | None]
"""Packed rows in the order of their keys; None where there is none, so that the declared defaults are fed."""


READ_TIMEOUT_S_MAX: Final = 0.05
"""How long a read may take: far above what Redis needs."""

READ_TIMEOUT_SHARE: Final = 0.5
"""Of the smallest deadline that any route has: the rest is for doing without, and for scoring."""


class RowReader(Protocol):
    """What the data path needs of the feature store: many keys in, their packed rows out, None where there is none."""

    def fetch(self, keys: Sequence[bytes], remember: Collection[bytes] = ()) -> Awaitable[Rows]:
        """Read the rows, in the order of the keys. What is awaited raises FeatureStoreUnavailable.

        remember: those of the keys whose rows the near cache shall keep.
        """
        ...


class FeatureLadder:
    """Finds rows on the first rung that has them, and names in `degraded` what is not of the first two.

    clock: monotonic seconds, the same by which the reader tells the near cache when a row was read.
    """

    __slots__ = ("_clock", "near_cache", "reader", "reads_failed")

    def __init__(self, reader: RowReader, near_cache: NearCache, clock: Callable[[], float]) -> None:
        self.reader, self.near_cache, self._clock = reader, near_cache, clock
        self.reads_failed = 0
        """Requests some of whose rows could not be read."""

    async def recall(self, keys: Sequence[bytes], owners: Sequence[ViewPlan]) -> tuple[Rows, tuple[str, ...]]:
        """Take rows out of the near cache where they are young enough, and read the others.

        owners: by key, the view that it is of. Returns the rows and what to say in `degraded`.
        Raises FeaturesUnavailable.
        """
        now_s = self._clock()
        rows: Rows = [None] * len(keys)
        unknown: list[int] = []
        for i, view in enumerate(owners):
            young = self.near_cache.fresh(keys[i], now_s - view.fresh_for_s) if view.fresh_for_s else None
            if young is None:
                unknown.append(i)
            else:
                rows[i] = young.row
        if not unknown:
            return rows, ()
        wanted, owners = [keys[i] for i in unknown], [owners[i] for i in unknown]
        degraded: tuple[str, ...] = ()
        try:
            read = await self.reader.fetch(
                wanted, [key for key, view in zip(wanted, owners, strict=True) if view.near_cached]
            )
        except FeatureStoreUnavailable as error:
            read, degraded = self.unread(wanted, owners, error)
        for i, row in zip(unknown, read, strict=True):
            rows[i] = row
        return rows, degraded

    def unread(
        self, keys: Sequence[bytes], owners: Sequence[ViewPlan], error: FeatureStoreUnavailable
    ) -> tuple[Rows, tuple[str, ...]]:
        """Step down for rows that Redis did not give: to remembered ones, to none (defaults are fed), to a refusal.

        Raises FeaturesUnavailable for a view whose route says `fail` and of which no row is remembered.
        """
        self.reads_failed += 1
        now_s = self._clock()
        rows: Rows = [None] * len(keys)
        unread: Collection[int] = range(len(keys))
        if isinstance(error, PartlyUnread):
            rows, unread = error.rows, sorted(error.unread)
        stale: dict[str, None] = {}
        for i in unread:
            key, view = keys[i], owners[i]
            row = self.near_cache.stale(key, now_s - view.stale_for_s) if view.stale_for_s else None
            if row is not None:
                stale[view.degraded_by_status[FeatureStatus.STALE]] = None
            elif view.fail_when_missing:
                raise FeaturesUnavailable(f"view {view.name!r} has no defaults to fall back on: {error}") from error
            rows[i] = row
        return rows, tuple(stale)


def read_timeout_s(deadlines_ms: Iterable[int]) -> float:
    """How long a read of features may take, with these deadlines of routes."""
    return min([READ_TIMEOUT_S_MAX, *(READ_TIMEOUT_SHARE * deadline_ms / 1000 for deadline_ms in deadlines_ms)])
