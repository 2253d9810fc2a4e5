"""Writes rows into Redis, never an older one over a newer: one by one here for streams, in bulk by `row_loader`."""

from collections.abc import Callable, Mapping

from feature_store.errors import UnknownView, WrongFeatureValue
from feature_store.redis_client import RedisClient, told_as_unavailable
from feature_store.registered_view import RegisteredView
from feature_store.row_keys import row_key
from feature_store.row_script import write_rows

EVENT_TIME_US_MAX = 2**53 - 1
"""The latest event time, in the year 2255: Redis compares event times as Lua numbers, exact up to here."""


class RowWriter:
    """Writes single rows, for streams. `views` are the registered ones; `now_us` is the clock, in µs since 1970, UTC.

    One writer per view: a row is written whole, so that two writers of different features would undo each other.
    """

    def __init__(self, redis: RedisClient, views: Mapping[str, RegisteredView], now_us: Callable[[], int]) -> None:
        self._redis, self._views, self._now_us = redis, views, now_us

    async def write(self, view: str, entity_id: str, values: Mapping[str, object], event_time_us: int) -> bool:
        """Write one row; a feature that is left out is null. False: a newer row was there, and was kept.

        Raises UnknownView, InvalidEntityId, UnknownFeature, WrongFeatureValue, RowTooLarge, FeatureStoreUnavailable.
        """
        registered = self._views.get(view)
        if registered is None:
            raise UnknownView(view, tuple(sorted(self._views)))
        if not 0 <= event_time_us <= EVENT_TIME_US_MAX:
            raise WrongFeatureValue("event_time", f"0 to {EVENT_TIME_US_MAX} µs since 1970", str(event_time_us))
        key = row_key(view, entity_id)
        row = registered.current.encode(values, event_time_us=event_time_us, write_time_us=self._now_us())
        with told_as_unavailable(self._redis):
            kept = await write_rows(self._redis, [key], [row], expiry_s(registered))
        return not kept


def expiry_s(view: RegisteredView) -> int:
    """When Redis may forget a row: twice the age limit. It bounds memory only; age itself is checked on read."""
    return max(1, 2 * view.max_age_us // 1_000_000)
