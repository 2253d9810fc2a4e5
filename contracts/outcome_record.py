"""The outcome log's row: what happened after a prediction, keyed by prediction and row, or by unit.

Files lie under `outcomes/date={d}/hour={h}/{host}-{boot}-{sequence}.parquet`. Where several outcomes of one metric
share a key, the one with the latest `at` counts, and of equals the one received last.
"""

from typing import Final

import pyarrow as pa

SCHEMA_VERSION: Final = 1

OUTCOME_SCHEMA: Final = pa.schema(
    [
        pa.field("schema_version", pa.int16(), nullable=False),
        pa.field("prediction_id", pa.string()),
        pa.field("row", pa.int32()),
        pa.field("unit", pa.string()),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("received_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ],
    metadata={"sekisho.schema_version": str(SCHEMA_VERSION)},
)
