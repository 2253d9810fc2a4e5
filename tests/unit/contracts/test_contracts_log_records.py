import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts import outcome_record, prediction_record
from contracts.datatypes import DATATYPES
from contracts.outcome_record import OUTCOME_SCHEMA
from contracts.prediction_record import ARROW_TYPE_BY_DATATYPE, FIXED_FIELDS, prediction_schema

GOLDEN_FEATURES = [(f"patient_profile.{datatype.lower()}", datatype) for datatype in sorted(DATATYPES)]
GOLDEN_OUTPUTS = [("score", "FP32"), ("embedding.0", "FP64"), ("label", "BYTES")]


@pytest.fixture
def sql() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


@pytest.fixture
def predictions(golden: Path) -> Path:
    return golden / "prediction_record_v1.parquet"


@pytest.fixture
def outcomes(golden: Path) -> Path:
    return golden / "outcome_record_v1.parquet"


def test_version_1_of_the_prediction_record_is_what_is_written_today(predictions: Path):
    today = prediction_schema(
        entities=["patient"], views=["patient_profile"], features=GOLDEN_FEATURES, outputs=GOLDEN_OUTPUTS
    )
    assert prediction_record.SCHEMA_VERSION == 1
    written = pq.read_schema(predictions)
    assert written.equals(today)  # without metadata, among which is Parquet's own name for the items of a list
    assert written.metadata == today.metadata


def test_version_1_of_the_outcome_record_is_what_is_written_today(outcomes: Path):
    assert outcome_record.SCHEMA_VERSION == 1
    assert pq.read_schema(outcomes).equals(OUTCOME_SCHEMA, check_metadata=True)


def test_the_golden_predictions_are_read_value_by_value(predictions: Path):
    served, fallback = pq.read_table(predictions).to_pylist()
    assert served["prediction_id"] == "019a3a3f-0000-7000-8000-000000000001"
    assert served["ts"].isoformat() == "2026-10-31T09:00:00.123456+00:00"
    assert (served["enrol_bucket"], served["split_bucket"], served["assignment_probability"]) == (0, 9999, 0.1)
    assert served["f.patient_profile.uint64"] == 2**64 - 1
    assert served["f.patient_profile.bytes"] == "é関\U0001f600"
    assert (served["y.score"], served["y.label"]) == (0.25, "benign")
    assert (fallback["row"], fallback["version"], fallback["variant_served"]) == (1, "1", None)
    assert fallback["degraded"] == ["variant_fallback", "feature_default:patient_profile"]


def test_the_golden_outcomes_are_read_value_by_value(outcomes: Path):
    by_prediction, by_unit = pq.read_table(outcomes).to_pylist()
    assert (by_prediction["prediction_id"], by_prediction["row"]) == ("019a3a3f-0000-7000-8000-000000000001", 0)
    assert (by_unit["unit"], by_unit["metric"], by_unit["value"]) == ("p7", "readmitted", 0.0)


def test_duckdb_reads_both_records_where_they_lie(sql: duckdb.DuckDBPyConnection, predictions: Path, outcomes: Path):
    for path in (predictions, outcomes):
        assert sql.sql(f"SELECT count(*) FROM '{path}'").fetchall() == [(2,)]
    (row,) = sql.sql(
        'SELECT epoch_us(ts), model, variant_served, "f.patient_profile.int64", "f.patient_profile.fp16", "y.score" '
        f"FROM '{predictions}' WHERE row = 0"
    ).fetchall()
    assert row == (1_793_437_200_123_456, "diagnosis", "treatment", -(2**63), 0.5, 0.25)


def test_duckdb_joins_outcomes_to_predictions(sql: duckdb.DuckDBPyConnection, predictions: Path, outcomes: Path):
    joined = sql.sql(
        f"SELECT p.unit, o.metric, o.value FROM '{predictions}' p JOIN '{outcomes}' o USING (prediction_id, row)"
    )
    assert joined.fetchall() == [("p7", "correct", 1.0)]


def test_versions_with_other_columns_are_read_together_from_the_hive_layout(
    sql: duckdb.DuckDBPyConnection, predictions: Path, tmp_path: Path
):
    first = tmp_path / "predictions/model=diagnosis/date=2026-10-31/hour=09/host-boot-000001.parquet"
    second = tmp_path / "predictions/model=diagnosis/date=2026-11-01/hour=00/host-boot-000002.parquet"
    for path in (first, second):
        path.parent.mkdir(parents=True)
    shutil.copy(predictions, first)
    row = pq.read_table(predictions).slice(0, 1)
    fewer = row.drop_columns([name for name in row.column_names if name.startswith("f.")])
    pq.write_table(fewer.append_column("f.request.hour", pa.array([13], pa.int64())), second)
    log = f"read_parquet('{tmp_path}/predictions/*/*/*/*.parquet', hive_partitioning = true, union_by_name = true)"
    assert sql.sql(f"SELECT DISTINCT model FROM {log}").fetchall() == [("diagnosis",)]
    assert sql.sql(
        f'SELECT CAST(date AS VARCHAR), CAST(hour AS INTEGER), count(*), max("f.request.hour"), '
        f'max("f.patient_profile.fp64") FROM {log} GROUP BY ALL ORDER BY ALL'
    ).fetchall() == [("2026-10-31", 9, 2, None, 0.1), ("2026-11-01", 0, 1, 13, None)]


def test_every_datatype_has_a_column_type():
    assert ARROW_TYPE_BY_DATATYPE.keys() == DATATYPES


def test_the_columns_of_a_version_follow_the_fixed_ones_in_the_plans_order():
    schema = prediction_schema(
        entities=["user", "item"],
        views=["profile", "price"],
        features=[("profile.age", "FP32"), ("request.hour", "INT64")],
        outputs=[("score", "FP32")],
    )
    assert schema.names[: len(FIXED_FIELDS)] == [field.name for field in FIXED_FIELDS]
    assert schema.names[len(FIXED_FIELDS) :] == [
        "entity.user",
        "entity.item",
        "status.profile",
        "status.price",
        "event_time.profile",
        "event_time.price",
        "f.profile.age",
        "f.request.hour",
        "y.score",
    ]


def test_no_version_can_name_a_column_like_a_fixed_one():
    assert not any("." in field.name for field in FIXED_FIELDS)
