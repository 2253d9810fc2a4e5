from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis import VariantOutcome, outcomes_by_variant
from analysis.errors import NoRows, UnreadableFile
from contracts.outcome_record import OUTCOME_SCHEMA

DAY = datetime(2026, 1, 2, tzinfo=UTC)


def write_outcomes(log, *rows):
    """Write outcomes beside the log; each row is (prediction_id, row, value, and what differs from the defaults)."""
    folder = log.root.parent / "outcomes/date=2026-01-02/hour=00"
    folder.mkdir(parents=True, exist_ok=True)
    default = {"schema_version": 1, "metric": "correct", "at": DAY, "received_at": DAY}
    lines = [
        default | {"prediction_id": prediction, "row": row, "value": value} | (more[0] if more else {})
        for prediction, row, value, *more in rows
    ]
    table = pa.Table.from_pylist(lines, schema=OUTCOME_SCHEMA)
    pq.write_table(table, folder / f"host-boot-{len(list(folder.iterdir()))}.parquet")


def write_predictions(log, ids, **fixed):
    log.write({"v.x": np.zeros(len(ids))}, prediction_id=ids, **fixed)


def test_each_variant_gets_its_rows_its_outcomes_and_their_mean(log):
    write_predictions(log, ["a", "b", "c"], version="1", variant_served="control")
    write_predictions(log, ["d", "e"], version="2", variant_served="treatment")
    write_outcomes(log, ("a", 0, 1.0), ("b", 0, 0.0), ("d", 0, 1.0))
    assert outcomes_by_variant(log.root, "diagnosis", metric="correct") == (
        VariantOutcome(version="1", variant="control", rows=3, outcomes=2, mean=0.5),
        VariantOutcome(version="2", variant="treatment", rows=2, outcomes=1, mean=1.0),
    )


def test_the_outcome_with_the_latest_time_counts_whatever_the_order_of_arrival(log):
    write_predictions(log, ["a"])
    later = {"at": DAY + timedelta(hours=1), "received_at": DAY}
    earlier = {"at": DAY, "received_at": DAY + timedelta(hours=5)}
    write_outcomes(log, ("a", 0, 1.0, later), ("a", 0, 0.0, earlier))
    (found,) = outcomes_by_variant(log.root, "diagnosis", metric="correct")
    assert (found.outcomes, found.mean) == (1, 1.0)


def test_of_outcomes_at_one_time_the_one_received_last_counts(log):
    write_predictions(log, ["a"])
    write_outcomes(log, ("a", 0, 1.0), ("a", 0, 0.0, {"received_at": DAY + timedelta(seconds=1)}))
    (found,) = outcomes_by_variant(log.root, "diagnosis", metric="correct")
    assert found.mean == 0.0


def test_rows_of_one_prediction_are_told_apart_and_a_row_left_out_is_the_first(log):
    write_predictions(log, ["a", "a"], row=np.array([0, 1], "i4"))
    write_outcomes(log, ("a", None, 1.0), ("a", 1, 0.0))
    (found,) = outcomes_by_variant(log.root, "diagnosis", metric="correct")
    assert (found.outcomes, found.mean) == (2, 0.5)


def test_other_metrics_and_outcomes_keyed_by_unit_are_not_joined(log):
    write_predictions(log, ["a"])
    write_outcomes(log, ("a", 0, 1.0, {"metric": "revenue"}), (None, None, 1.0, {"unit": "u1"}))
    (found,) = outcomes_by_variant(log.root, "diagnosis", metric="correct")
    assert (found.rows, found.outcomes, found.mean) == (1, 0, None)


def test_shadow_and_forced_rows_are_left_out(log):
    write_predictions(log, ["a"])
    write_predictions(log, ["b"], shadow=True)
    write_predictions(log, ["c"], forced=True)
    write_outcomes(log, ("a", 0, 1.0), ("b", 0, 0.0), ("c", 0, 0.0))
    (found,) = outcomes_by_variant(log.root, "diagnosis", metric="correct")
    assert (found.rows, found.mean) == (1, 1.0)


def test_the_mean_weighs_rows_by_their_sample_weight(log):
    write_predictions(log, ["a", "b", "c"], sample_weight=np.array([1.0, 3.0, 100.0]))
    write_outcomes(log, ("a", 0, 0.0), ("b", 0, 1.0))
    (found,) = outcomes_by_variant(log.root, "diagnosis", metric="correct")
    assert found.mean == pytest.approx(0.75)


def test_a_log_without_any_outcome_file_has_rows_and_no_outcomes(log):
    write_predictions(log, ["a", "b"], variant_served=pa.nulls(2, pa.string()))
    (found,) = outcomes_by_variant(log.root, "diagnosis", metric="correct")
    assert found == VariantOutcome(version="1", variant="", rows=2, outcomes=0, mean=None)


def test_versions_with_other_features_are_joined_all_the_same(log):
    write_predictions(log, ["a"], version="1")
    log.write({"w.y": np.array(["word"])}, prediction_id=["b"], version="2")
    write_outcomes(log, ("b", 0, 1.0))
    found = outcomes_by_variant(log.root, "diagnosis", metric="correct")
    assert [(one.version, one.outcomes) for one in found] == [("1", 0), ("2", 1)]


def test_predictions_outside_the_window_are_left_out_and_outcomes_may_come_at_any_time(log):
    write_predictions(log, ["a"], at="2026-01-01T10:00:00")
    write_predictions(log, ["b"], at="2026-01-03T10:00:00")
    write_outcomes(log, ("a", 0, 1.0), ("b", 0, 0.0))
    (found,) = outcomes_by_variant(log.root, "diagnosis", metric="correct", end=DAY)
    assert (found.rows, found.mean) == (1, 1.0)


def test_an_empty_window_is_an_error(log):
    write_predictions(log, ["a"])
    with pytest.raises(NoRows, match="no rows of model 'diagnosis'"):
        outcomes_by_variant(log.root, "diagnosis", metric="correct", start=DAY + timedelta(hours=1))


def test_a_damaged_outcome_file_is_told(log):
    write_predictions(log, ["a"])
    write_outcomes(log, ("a", 0, 1.0))
    (path,) = log.root.parent.glob("outcomes/*/*/*.parquet")
    path.write_bytes(b"PAR1")
    with pytest.raises(UnreadableFile, match="cannot be read"):
        outcomes_by_variant(log.root, "diagnosis", metric="correct")
