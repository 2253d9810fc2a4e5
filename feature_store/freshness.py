"""How fresh the rows of each view are, from a bounded sample of them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from feature_store.entity_lookup import decode_row
from feature_store.errors import CorruptRow
from feature_store.redis_client import RedisClient, get_rows, scan_keys, told_as_unavailable
from feature_store.registered_view import RegisteredView
from feature_store.row_keys import row_key_prefix

SAMPLE_ROWS = 1_000
SAMPLE_ROWS_MAX = 100_000
KEYS_PER_SCAN = 1_000
SCANS_MAX = 10_000
"""Steps through the key space per view, so that looking for few rows among ten million other keys ends."""


@dataclass(slots=True)
class ViewFreshness:
    """What the sample of one view showed. Event times in µs; `schema_ids` counts rows by schema."""

    view: str
    fresh: int = 0
    stale: int = 0
    unreadable: int = 0
    oldest_us: int | None = None
    newest_us: int | None = None
    schema_ids: Counter[int] = field(default_factory=Counter)

    @property
    def rows(self) -> int:
        """Rows in the sample."""
        return self.fresh + self.stale + self.unreadable

    @property
    def stale_share(self) -> float:
        """Share of rows that serve no fresh value: stale or unreadable. Without any row: 1."""
        return 1 - self.fresh / self.rows if self.rows else 1.0


async def sample_freshness(
    redis: RedisClient, views: Iterable[RegisteredView], now_us: int, rows_per_view: int = SAMPLE_ROWS
) -> list[ViewFreshness]:
    """Look at up to `rows_per_view` rows of each view, in Redis's own hash order, which is as good as random.

    Raises FeatureStoreUnavailable.
    """
    with told_as_unavailable(redis):
        return [await _sample(redis, view, now_us, rows_per_view) for view in views]


async def _sample(redis: RedisClient, view: RegisteredView, now_us: int, rows_max: int) -> ViewFreshness:
    found = ViewFreshness(view.name)
    seen: set[bytes] = set()
    steps = 0
    async for keys in scan_keys(redis, row_key_prefix(view.name) + b"*", KEYS_PER_SCAN):
        new = [key for key in dict.fromkeys(keys) if key not in seen][: rows_max - len(seen)]
        seen.update(new)
        for raw in await get_rows(redis, new) if new else []:
            if raw is not None:  # None: it expired between the two commands
                _count(found, view, raw, now_us)
        steps += 1
        if len(seen) >= rows_max or steps >= SCANS_MAX:
            break
    return found


def _count(found: ViewFreshness, view: RegisteredView, raw: bytes, now_us: int) -> None:
    try:
        row = decode_row(view, raw)
    except CorruptRow:
        found.unreadable += 1
        return
    found.schema_ids[row.schema_id] += 1
    if now_us - row.event_time_us > view.max_age_us:
        found.stale += 1
    else:
        found.fresh += 1
    found.oldest_us = row.event_time_us if found.oldest_us is None else min(found.oldest_us, row.event_time_us)
    found.newest_us = row.event_time_us if found.newest_us is None else max(found.newest_us, row.event_time_us)
