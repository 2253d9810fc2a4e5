import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from analysis import make_profile
from analysis.data_files import CSV_BYTES_MAX, open_data
from analysis.errors import UnreadableFile


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    return pa.table({"v.x": rng.normal(size=200), "v.c": rng.choice(["a", "b"], 200)})


def test_parquet_files_and_the_table_they_came_from_make_the_same_profile(tmp_path, table):
    pq.write_table(table.slice(0, 120), tmp_path / "one.parquet")
    pq.write_table(table.slice(120), tmp_path / "two.parquet")
    profile = make_profile(open_data(f"{tmp_path}/*.parquet"), model="m")
    assert profile == make_profile(table, model="m")


def test_csv_files_and_the_table_they_came_from_make_the_same_profile(tmp_path, table):
    pa_csv.write_csv(table, tmp_path / "train.csv")
    assert make_profile(open_data(str(tmp_path / "train.csv")), model="m") == make_profile(table, model="m")


def test_a_pattern_that_matches_nothing_is_told(tmp_path):
    with pytest.raises(UnreadableFile, match=r"\*\.parquet: no such file"):
        open_data(f"{tmp_path}/*.parquet")


def test_mixed_kinds_of_files_are_refused(tmp_path, table):
    pq.write_table(table, tmp_path / "a.parquet")
    pa_csv.write_csv(table, tmp_path / "b.csv")
    with pytest.raises(UnreadableFile, match=r"found \.csv, \.parquet"):
        open_data(f"{tmp_path}/*")


def test_files_whose_columns_differ_are_refused_by_the_column(tmp_path, table):
    pq.write_table(table, tmp_path / "a.parquet")
    pq.write_table(table.append_column("v.new", table["v.x"]), tmp_path / "b.parquet")
    with pytest.raises(UnreadableFile, match=r"b\.parquet: its columns differ from those of a\.parquet in v\.new"):
        open_data(f"{tmp_path}/*.parquet")


@pytest.mark.parametrize("name", ["bad.parquet", "bad.csv"])
def test_a_damaged_file_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b'"a\xff\x00' * 10)
    with pytest.raises(UnreadableFile, match="readable"):
        make_profile(open_data(str(tmp_path / name)), model="m")


def test_a_csv_file_past_the_limit_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "huge.csv").open("wb") as file:
        file.truncate(CSV_BYTES_MAX + 1)
    with pytest.raises(UnreadableFile, match="convert it to Parquet"):
        open_data(str(tmp_path / "huge.csv"))
