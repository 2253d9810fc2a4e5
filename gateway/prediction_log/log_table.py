"""What the log writer needs to know of a table: where its files lie and how entries become rows."""

from collections.abc import Sequence
from typing import Any, Protocol

import pyarrow as pa


class LogTable(Protocol):
    """One table of the log: a directory, a schema, and the way from entries to rows of it. Hashed by identity."""

    @property
    def directory(self) -> str:
        """Path below the log's root, `predictions/model=churn` say; `date=…/hour=…` follow it."""
        ...

    @property
    def label(self) -> str:
        """A short name, unique among tables that write to one directory; part of spool file names."""
        ...

    @property
    def schema(self) -> pa.Schema:
        """The columns of its Parquet files."""
        ...

    def batch(self, entries: Sequence[Any]) -> pa.RecordBatch:
        """Turn entries into rows, some columns of which may be packed; called in the writer's thread."""
        ...
