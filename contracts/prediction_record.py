"""The prediction log's row: one for each scored instance, as typed Parquet columns.

Fixed columns come first; then, by the model version's own plan, `entity.{kind}`, `status.{view}` and
`event_time.{view}`, `f.{view}.{feature}` (as fed to the model) and `y.{output}`. Files lie under
`predictions/model={m}/date={d}/hour={h}/{host}-{boot}-{sequence}.parquet`, so that no two writers share a name.
"""

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

SCHEMA_VERSION: Final = 1

FEATURE_PREFIX: Final = "f."
STATUS_PREFIX: Final = "status."
EVENT_TIME_PREFIX: Final = "event_time."
ENTITY_PREFIX: Final = "entity."
OUTPUT_PREFIX: Final = "y."

STATUSES: Final = ("PRESENT", "STALE", "NULL", "MISSING")
"""How a view's row was found, by code. MISSING also where the store could not be read."""

TIMESTAMP: Final = pa.timestamp("us", tz="UTC")
DICTIONARY: Final = pa.dictionary(pa.int32(), pa.string())
"""For words that repeat in nearly every row."""

ARROW_TYPE_BY_DATATYPE: Final[dict[str, pa.DataType]] = {
    "BOOL": pa.bool_(),
    "UINT8": pa.uint8(),
    "UINT16": pa.uint16(),
    "UINT32": pa.uint32(),
    "UINT64": pa.uint64(),
    "INT8": pa.int8(),
    "INT16": pa.int16(),
    "INT32": pa.int32(),
    "INT64": pa.int64(),
    "FP16": pa.float16(),
    "FP32": pa.float32(),
    "FP64": pa.float64(),
    "BYTES": pa.string(),
}

FIXED_FIELDS: Final = (
    pa.field("prediction_id", pa.string(), nullable=False),
    pa.field("row", pa.int32(), nullable=False),
    pa.field("request_id", pa.string(), nullable=False),
    pa.field("schema_version", pa.int16(), nullable=False),
    pa.field("ts", TIMESTAMP, nullable=False),
    pa.field("model", DICTIONARY, nullable=False),
    pa.field("version", DICTIONARY, nullable=False),  # the one that served
    pa.field("experiment", DICTIONARY),
    pa.field("revision", pa.int64()),
    pa.field("epoch", pa.int64()),
    pa.field("unit", pa.string()),
    pa.field("variant_assigned", DICTIONARY),
    pa.field("variant_served", DICTIONARY),  # null where the default version stepped in
    pa.field("enrol_bucket", pa.int16()),
    pa.field("split_bucket", pa.int16()),
    pa.field("assignment_probability", pa.float64()),
    pa.field("forced", pa.bool_(), nullable=False),
    pa.field("shadow", pa.bool_(), nullable=False),
    pa.field("degraded", pa.list_(pa.string()), nullable=False),
    pa.field("error_code", DICTIONARY),  # the fault that made a fallback answer
    pa.field("features_us", pa.int32(), nullable=False),
    pa.field("queue_us", pa.int32(), nullable=False),
    pa.field("infer_us", pa.int32(), nullable=False),
    pa.field("total_us", pa.int32(), nullable=False),
    pa.field("sample_weight", pa.float64(), nullable=False),
)


def prediction_schema(
    *,
    entities: Sequence[str],
    views: Sequence[str],
    features: Sequence[tuple[str, str]],
    outputs: Sequence[tuple[str, str]],
) -> pa.Schema:
    """Build the schema of one model version's rows.

    features: (`view.feature`, datatype) in the model's order; an element of a list feature is `view.feature.3`.
    outputs: (name, datatype); more than one value a row makes the caller list each column.
    """
    return pa.schema(
        [
            *FIXED_FIELDS,
            *(pa.field(ENTITY_PREFIX + kind, pa.string()) for kind in entities),
            *(pa.field(STATUS_PREFIX + view, DICTIONARY) for view in views),
            *(pa.field(EVENT_TIME_PREFIX + view, TIMESTAMP) for view in views),
            *(pa.field(FEATURE_PREFIX + name, ARROW_TYPE_BY_DATATYPE[datatype]) for name, datatype in features),
            *(pa.field(OUTPUT_PREFIX + name, ARROW_TYPE_BY_DATATYPE[datatype]) for name, datatype in outputs),
        ],
        metadata={"sekisho.schema_version": str(SCHEMA_VERSION)},
    )
