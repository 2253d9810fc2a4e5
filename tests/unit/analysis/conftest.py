from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.prediction_record import prediction_schema

DATATYPES = {"f2": "FP16", "f4": "FP32", "f8": "FP64", "i8": "INT64", "i4": "INT32", "b1": "BOOL"}


class LogWriter:
    """Writes prediction log files as a gateway would: one version's rows, with the columns of its plan."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files = 0

    def write(
        self,
        features: Mapping[str, Any],
        *,
        scores: Mapping[str, Any] | None = None,
        statuses: Mapping[str, Any] | None = None,
        model: str = "diagnosis",
        version: str = "1",
        at: str = "2026-01-01T10:00:00",
        partition: str | None = None,
        **fixed: Any,
    ) -> Path:
        """Write one file. Values are numpy arrays or pyarrow arrays (for nulls); `fixed` sets fixed columns."""
        scores, statuses = scores or {}, statuses or {}
        self._files += 1
        rows = len(next(iter({**features, **scores}.values())))
        schema = prediction_schema(
            entities=["patient"],
            views=list(statuses),
            features=[(name, _datatype(values)) for name, values in features.items()],
            outputs=[(name, _datatype(values)) for name, values in scores.items()],
        )
        defaults = {
            "prediction_id": [f"{version}-{self._files}-{row}" for row in range(rows)],
            "row": 0,
            "request_id": "r",
            "schema_version": 1,
            "ts": np.datetime64(at, "us") + np.arange(rows) * np.timedelta64(1000, "us"),
            "model": model,
            "version": version,
            "variant_served": "control",
            "forced": False,
            "shadow": False,
            "degraded": [[]] * rows,
            "features_us": 1,
            "queue_us": 1,
            "infer_us": 1,
            "total_us": 1,
            "sample_weight": 1.0,
        }
        given = defaults | fixed
        given |= {f"f.{name}": values for name, values in features.items()}
        given |= {f"y.{name}": values for name, values in scores.items()}
        given |= {f"status.{name}": values for name, values in statuses.items()}
        arrays = [_array(given.get(field.name), field.type, rows) for field in schema]
        date, hour = at[:10], at[11:13]
        folder = self.root / f"model={model}" / (partition or f"date={date}/hour={hour}")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"host-boot-{self._files:06}.parquet"
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path, compression="zstd")
        return path


def _datatype(values: Any) -> str:
    if isinstance(values, pa.Array):
        values = values.drop_null().to_numpy(zero_copy_only=False)
    kind = np.asarray(values).dtype
    return "BYTES" if kind.kind in "UO" else DATATYPES[f"{kind.kind}{kind.itemsize}"]


def _array(values: Any, kind: pa.DataType, rows: int) -> pa.Array:
    if values is None:
        return pa.nulls(rows, kind)
    if isinstance(values, (str, bool, int, float)):
        values = [values] * rows
    array = values if isinstance(values, pa.Array) else pa.array(values)
    if pa.types.is_dictionary(kind):
        return array.cast(pa.string()).dictionary_encode()
    return array.cast(kind)


@pytest.fixture
def log(tmp_path: Path) -> LogWriter:
    return LogWriter(tmp_path / "predictions")
