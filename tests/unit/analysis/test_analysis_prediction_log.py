from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.errors import NoRows, UnreadableFile
from analysis.prediction_log import LogWindow, find_parts, open_log

X = {"v.x": np.array([1.0, 2.0])}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def rows(log, **window):
    """Count the rows of a window."""
    with open_log(log.root, LogWindow(model="diagnosis", **window), threads=1) as opened:
        return sum(opened.fetch(opened.rows(part).select("ts")).num_rows for part in opened.parts)


def test_rows_of_shadow_traffic_are_left_out_unless_asked_for(log):
    log.write(X)
    log.write(X, shadow=True)
    assert (rows(log), rows(log, include_shadow=True)) == (2, 4)


def test_a_window_holds_its_first_moment_and_not_its_last(log):
    log.write({"v.x": np.arange(3.0)}, at="2026-01-01T12:00:00")
    millisecond = timedelta(milliseconds=1)
    assert rows(log, start=NOON, end=NOON + 2 * millisecond) == 2
    assert rows(log, start=NOON + millisecond) == 2


def test_another_version_and_another_model_are_left_out(log):
    log.write(X, version="1")
    log.write(X, version="2")
    log.write(X, model="other")
    assert (rows(log), rows(log, version="2")) == (4, 2)


def test_a_row_filed_under_the_neighbouring_hour_is_found_by_its_own_time(log):
    log.write(X, at="2026-01-01T11:59:59", partition="date=2026-01-01/hour=13")
    assert rows(log, start=NOON - timedelta(seconds=2), end=NOON) == 2


def test_files_far_from_the_window_are_not_opened(log):
    log.write(X, at="2026-01-01T12:00:00")
    log.write(X, at="2026-01-05T12:00:00").write_bytes(b"damaged, and never read")
    assert rows(log, end=NOON + timedelta(hours=3)) == 2


def test_a_directory_that_is_not_named_as_the_writer_names_it_is_read_all_the_same(log):
    log.write(X, at="2026-01-01T12:00:00", partition="date=unknown/hour=x")
    assert rows(log, start=NOON, end=NOON + timedelta(hours=1)) == 2


def test_files_are_grouped_by_their_columns(log):
    log.write(X, version="1")
    log.write(X | {"v.y": np.array([1.0, 2.0])}, version="2")
    log.write({"v.x": np.array([1, 2])}, version="3")
    log.write(X, version="1")
    parts = find_parts(log.root, LogWindow(model="diagnosis"))
    assert sorted(len(part.paths) for part in parts) == [1, 1, 2]


def test_the_directory_that_holds_predictions_serves_as_well_as_predictions_itself(log):
    log.write(X)
    with open_log(log.root.parent, LogWindow(model="diagnosis"), threads=1) as opened:
        assert opened.root == log.root


def test_a_model_without_files_is_told_with_model_window_and_place(log):
    log.write(X)
    with pytest.raises(NoRows, match=r"predictions: no rows of model 'absent' from 2026-01-01T12:00:00\+00:00 to now"):
        open_log(log.root, LogWindow(model="absent", start=NOON))


def test_a_model_name_does_not_lead_out_of_the_log(log, tmp_path):
    log.write(X)
    with pytest.raises(NoRows):
        open_log(log.root, LogWindow(model="../model=diagnosis"))


def test_a_log_that_is_no_directory_is_told(tmp_path):
    with pytest.raises(UnreadableFile, match="is not a directory; give the prediction log's root"):
        open_log(tmp_path / "absent", LogWindow(model="m"))


def test_a_damaged_file_is_told_by_its_name(log):
    path = log.write(X)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UnreadableFile, match=rf"{path.name}: is not a readable Parquet file; move it away"):
        open_log(log.root, LogWindow(model="diagnosis"))


def test_a_file_whose_pages_are_damaged_is_told_when_they_are_read(log):
    path = log.write({"v.x": np.random.default_rng(0).normal(size=5_000)})
    data = bytearray(path.read_bytes())
    data[4:4000] = bytes(3996)
    path.write_bytes(data)
    with (
        open_log(log.root, LogWindow(model="diagnosis"), threads=1) as opened,
        pytest.raises(UnreadableFile, match="cannot be read"),
    ):
        opened.fetch(opened.rows(opened.parts[0]))


def test_parquet_that_is_no_prediction_log_is_told_by_what_it_lacks(log):
    path = log.write(X)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(UnreadableFile, match="it has no column ts, model, version"):
        open_log(log.root, LogWindow(model="diagnosis"))


def test_a_schema_version_from_the_future_is_refused(log):
    path = log.write(X)
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"sekisho.schema_version": "2"}), path)
    with pytest.raises(UnreadableFile, match="has schema version 2; up to 1 is known"):
        open_log(log.root, LogWindow(model="diagnosis"))


def test_a_window_that_ends_before_it_begins_is_refused():
    with pytest.raises(ValueError, match="not before its end"):
        LogWindow(model="m", start=NOON, end=NOON)


def test_a_bound_without_time_zone_is_refused():
    with pytest.raises(ValueError, match="has no time zone"):
        LogWindow(model="m", start=datetime(2026, 1, 1))  # noqa: DTZ001 - what is refused
