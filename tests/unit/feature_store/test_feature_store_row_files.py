from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from feature_store.dtypes import Dtype
from feature_store.load_progress import CannotResume, progress_path, read_progress, write_progress
from feature_store.row_files import UnreadableRowFile, open_row_file
from feature_store.row_layout import Column, place_columns

LAYOUT = place_columns("v", 1, [Column("radius", Dtype.FLOAT32), Column("tags", Dtype.STRING)])
TABLE = pa.table({"patient": ["007", "8", "9"], "radius": [1.0, 2.0, 3.0]})


def read(path: Path, rows_before: int = 0) -> list[dict[str, object]]:
    with open_row_file(path, LAYOUT, {"patient", "event_time"}, rows_before) as file:
        return [row for batch in file.batches for row in batch.to_pylist()]


def write_stream(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)


WRITERS = {
    "rows.parquet": lambda table, path: pyarrow.parquet.write_table(table, path, row_group_size=2),
    "rows.feather": pyarrow.feather.write_feather,
    "rows.arrow": write_stream,
    "rows.csv": lambda table, path: path.write_text("patient,radius\n007,1\n8,2\n9,3\n", encoding="utf-8"),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("rows_before", [0, 1, 2, 3, 4])
def test_every_format_gives_the_same_rows_from_any_row_on(tmp_path, name, rows_before):
    WRITERS[name](TABLE, tmp_path / name)
    assert read(tmp_path / name, rows_before) == TABLE.to_pylist()[rows_before:]


def test_in_csv_only_an_empty_field_without_quotes_is_null_and_ids_stay_text(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('patient,radius,tags,event_time\n007,,,5\nNA,2,"",6\n1e3,3,null,7\n', encoding="utf-8")
    assert read(path) == [
        {"patient": "007", "radius": None, "tags": None, "event_time": "5"},
        {"patient": "NA", "radius": 2.0, "tags": "", "event_time": "6"},
        {"patient": "1e3", "radius": 3.0, "tags": "null", "event_time": "7"},
    ]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("rows.parquet", b"no parquet", "rows.parquet"),
        ("rows.arrow", b"no arrow", "rows.arrow"),
        ("rows.csv", b"patient,radius\na,b\n", "Row #2"),
        ("rows.csv", b"patient,radius\na,1,2\n", "Row #2"),
        ("rows.csv", b"", "Empty CSV"),
        ("rows.json", b"{}", ".parquet, .csv"),
    ],
)
def test_a_file_that_is_not_what_its_suffix_says_is_refused(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnreadableRowFile, match=says):
        read(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UnreadableRowFile, match="No such file"):
        read(tmp_path / "none.csv")


def test_progress_is_kept_beside_the_data_and_read_back(tmp_path):
    data = tmp_path / "rows.csv"
    data.write_bytes(b"x")
    path = progress_path(data, "v")
    assert path == tmp_path / "rows.csv.v.progress"
    write_progress(path, data, "v", 5_000)
    write_progress(path, data, "v", 10_000)
    assert read_progress(path, data, "v") == 10_000
    assert sorted(tmp_path.iterdir()) == [data, path]


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff", b'{"view":"v","data_bytes":1,"data_modified_ns":1,"rows":-5}']
)
def test_progress_that_is_damaged_or_about_other_data_is_refused(tmp_path, content):
    data = tmp_path / "rows.csv"
    data.write_bytes(b"x")
    path = progress_path(data, "v")
    path.write_bytes(content)
    with pytest.raises(CannotResume, match="without --resume"):
        read_progress(path, data, "v")


def test_progress_of_a_file_that_changed_of_another_view_or_of_no_load_is_refused(tmp_path):
    data = tmp_path / "rows.csv"
    data.write_bytes(b"x")
    path = progress_path(data, "v")
    with pytest.raises(CannotResume, match="no such file"):
        read_progress(path, data, "v")
    write_progress(path, data, "v", -1)
    with pytest.raises(CannotResume, match="other data"):
        read_progress(path, data, "v")
    write_progress(path, data, "v", 1)
    with pytest.raises(CannotResume, match="other data"):
        read_progress(path, data, "w")
    data.write_bytes(b"xy")
    with pytest.raises(CannotResume, match="changed"):
        read_progress(path, data, "v")
