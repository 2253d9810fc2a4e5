"""Loads whole tables of rows into Redis: checked, packed in bulk, and written without ever replacing a newer row."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from feature_store.arrow_columns import WrongColumn, entity_ids, event_times_us, feature_values
from feature_store.bulk_rows import encode_rows
from feature_store.redis_client import RedisClient, told_as_unavailable
from feature_store.registered_view import RegisteredView
from feature_store.row_keys import row_key_prefix
from feature_store.row_script import write_rows
from feature_store.row_writer import expiry_s

CHUNK_ROWS = 5_000
"""Rows packed, sent and acknowledged together, unless told otherwise."""

CHUNK_ROWS_MAX = 100_000
EVENT_TIME_COLUMN = "event_time"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What a load did. `kept_newer` rows were not written, because Redis holds a later event time."""

    rows: int
    written: int
    kept_newer: int
    absent: tuple[str, ...]
    """Features that the data has no column for: null in every row."""
    ignored: tuple[str, ...]
    """Columns of the data that are no feature of the view."""


class _Sending(NamedTuple):
    """A chunk on its way to Redis."""

    kept_newer: asyncio.Task[int]
    rows: int


class RowLoader:
    """Loads batches of one view, one after another. Columns are matched by name.

    A feature without a column is null; a column that is no feature is refused unless `ignore_extra`. Without a column
    of event times, `now_us` is every row's. Batches of one loader share their columns, and number their rows together.
    """

    def __init__(
        self,
        redis: RedisClient,
        view: RegisteredView,
        now_us: Callable[[], int],
        *,
        entity_column: str | None = None,
        event_time_column: str = EVENT_TIME_COLUMN,
        chunk_rows: int = CHUNK_ROWS,
        ignore_extra: bool = False,
        rows_before: int = 0,
    ) -> None:
        if not 1 <= chunk_rows <= CHUNK_ROWS_MAX:
            raise ValueError(f"chunk_rows {chunk_rows} is not from 1 to {CHUNK_ROWS_MAX}")
        self._redis, self._view, self._now_us = redis, view, now_us
        self._entity_column = entity_column or view.entity
        self._event_time_column = event_time_column
        self._chunk_rows, self._ignore_extra = chunk_rows, ignore_extra
        self._columns = {column.name: column for column in view.current.columns}
        self._expiry_s = expiry_s(view)
        self._rows_before = self._rows = rows_before
        self._kept_newer = 0
        self._absent: tuple[str, ...] = ()
        self._ignored: tuple[str, ...] = ()

    @property
    def report(self) -> LoadReport:
        """What was done so far: every counted row is in Redis."""
        rows = self._rows - self._rows_before
        return LoadReport(
            rows=rows,
            written=rows - self._kept_newer,
            kept_newer=self._kept_newer,
            absent=self._absent,
            ignored=self._ignored,
        )

    def check_columns(self, names: list[str]) -> None:
        """Match the data's columns with the view's features. Raises WrongColumn."""
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise WrongColumn(twice[0], None, "is there twice")
        if self._entity_column not in names:
            raise WrongColumn(self._entity_column, None, f"the entity's column is missing; there are: {_listed(names)}")
        own = {self._entity_column, self._event_time_column} - self._columns.keys()
        self._ignored = tuple(name for name in names if name not in own and name not in self._columns)
        self._absent = tuple(name for name in self._columns if name not in names)
        if self._ignored and not self._ignore_extra:
            raise WrongColumn(
                self._ignored[0],
                None,
                f"is no feature of {self._view.name}; --ignore-extra (ignore_extra) leaves it out",
            )
        if len(self._absent) == len(self._columns):
            raise WrongColumn("*", None, f"none is a feature of {self._view.name}: {_listed(list(self._columns))}")

    async def load(self, batch: pa.RecordBatch, on_progress: Callable[[LoadReport], None] | None = None) -> None:
        """Write one batch. `on_progress` is called after each acknowledged chunk.

        Raises WrongColumn, RowTooLarge, FeatureStoreUnavailable; the report then says how many rows are in Redis.
        """
        self.check_columns(batch.schema.names)
        sending: _Sending | None = None
        try:
            # One chunk is on its way while the next is packed; never two, so that rows arrive in the file's order.
            for start in range(0, batch.num_rows, self._chunk_rows):
                on_its_way = sending.rows if sending is not None else 0
                keys, rows = self._packed(batch.slice(start, self._chunk_rows), self._rows + on_its_way + 1)
                sent, sending = sending, None
                await self._acknowledge(sent, on_progress)
                sending = _Sending(asyncio.create_task(self._send(keys, rows)), len(rows))
                await asyncio.sleep(0)  # lets the task write before this one packs again
        finally:
            await self._acknowledge(sending, on_progress)

    async def _acknowledge(self, sent: _Sending | None, on_progress: Callable[[LoadReport], None] | None) -> None:
        if sent is None:
            return
        self._kept_newer += await sent.kept_newer
        self._rows += sent.rows
        if on_progress is not None:
            on_progress(self.report)

    def _packed(self, batch: pa.RecordBatch, first_row: int) -> tuple[list[bytes], list[bytes]]:
        ids = entity_ids(self._entity_column, batch.column(self._entity_column), first_row)
        now_us = self._now_us()
        if self._event_time_column in batch.schema.names:
            times = event_times_us(self._event_time_column, batch.column(self._event_time_column), first_row)
        else:
            times = np.full(batch.num_rows, now_us, np.int64)
        columns = {
            name: feature_values(column, batch.column(name), first_row)
            for name, column in self._columns.items()
            if name in batch.schema.names
        }
        rows = encode_rows(self._view.current, columns, times, now_us)
        prefix = row_key_prefix(self._view.name)
        return [prefix + entity_id for entity_id in ids], rows

    async def _send(self, keys: list[bytes], rows: list[bytes]) -> int:
        with told_as_unavailable(self._redis):
            return await write_rows(self._redis, keys, rows, self._expiry_s)


async def load_rows(
    redis: RedisClient,
    view: RegisteredView,
    table: pa.Table | pa.RecordBatch,
    *,
    now_us: Callable[[], int],
    on_progress: Callable[[LoadReport], None] | None = None,
    **options: Any,
) -> LoadReport:
    """Load a whole table into one view. `options` are RowLoader's.

    Raises WrongColumn, RowTooLarge and FeatureStoreUnavailable. Loading the same table again is harmless.
    """
    loader = RowLoader(redis, view, now_us, **options)
    loader.check_columns(table.schema.names)
    for batch in table.to_batches() if isinstance(table, pa.Table) else [table]:
        await loader.load(batch, on_progress)
    return loader.report


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:20])
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"
