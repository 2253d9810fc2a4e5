"""All that the store knows of one entity, feature by feature: for people, not for the serving path."""

from collections.abc import Iterable, Iterator

import msgspec

from feature_store.errors import CorruptRow
from feature_store.feature_status import FeatureStatus
from feature_store.redis_client import RedisClient, get_rows, told_as_unavailable
from feature_store.registered_view import RegisteredView
from feature_store.row_keys import row_key
from feature_store.row_layout import DecodedRow, read_header


class FeatureReading(msgspec.Struct, frozen=True, kw_only=True):
    """One feature of one entity. `value` is the default where the status is NULL or MISSING; `age_s` by event time."""

    view: str
    feature: str
    value: object
    status: str
    age_s: float | None
    fault: str | None = None


async def look_up(
    redis: RedisClient, views: Iterable[RegisteredView], entity_id: str, now_us: int
) -> list[FeatureReading]:
    """Read one entity in every view given. Raises InvalidEntityId and FeatureStoreUnavailable."""
    asked = list(views)
    keys = [row_key(view.name, entity_id) for view in asked]
    if not keys:
        return []
    with told_as_unavailable(redis):
        rows = await get_rows(redis, keys)
    return [reading for view, raw in zip(asked, rows, strict=True) for reading in read_row(view, raw, now_us)]


def read_row(view: RegisteredView, raw: bytes | None, now_us: int) -> Iterator[FeatureReading]:
    """Unpack one row with the status of each feature. A row that cannot be read is MISSING, with the fault."""
    row, fault = None, None
    if raw is not None:
        try:
            row = decode_row(view, raw)
        except CorruptRow as error:
            fault = error.problem
    for column in view.current.columns:
        stored = None if row is None else row.values.get(column.name)
        yield FeatureReading(
            view=view.name,
            feature=column.name,
            value=view.defaults.get(column.name) if stored is None else stored,
            status=_status(view, row, stored, now_us).name,
            age_s=None if row is None else (now_us - row.event_time_us) / 1_000_000,
            fault=fault,
        )


def decode_row(view: RegisteredView, raw: bytes) -> DecodedRow:
    """Unpack a row under whichever schema it was written. Raises CorruptRow, also for an unregistered schema."""
    schema_id = read_header(view.name, raw).schema_id
    layout = view.schemas.get(schema_id)
    if layout is None:
        raise CorruptRow(view.name, f"schema id {schema_id} is not registered")
    return layout.decode(raw)


def _status(view: RegisteredView, row: DecodedRow | None, stored: object, now_us: int) -> FeatureStatus:
    if row is None:
        return FeatureStatus.MISSING
    if now_us - row.event_time_us > view.max_age_us:
        return FeatureStatus.STALE
    return FeatureStatus.NULL if stored is None else FeatureStatus.PRESENT
