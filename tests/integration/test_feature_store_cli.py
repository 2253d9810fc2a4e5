import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from feature_store import EmbeddedRedis, open_redis, row_key
from feature_store.__main__ import main
from feature_store.load_progress import progress_path, read_progress, write_progress

pytestmark = pytest.mark.integration

FEATURES = """\
feature_views:
  means:
    entity: patient
    max_age: 1h
    features:
      - {name: radius, dtype: float32, default: 9.0}
      - {name: tags, dtype: string}
  worst:
    entity: patient
    max_age: 1h
    features:
      - {name: area, dtype: float64}
"""


@pytest.fixture
def redis_url(tmp_path_factory, monkeypatch) -> Iterator[str]:
    monkeypatch.delenv("SEKISHO_REDIS", raising=False)
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture
def features(tmp_path) -> Path:
    path = tmp_path / "features.yaml"
    path.write_text(FEATURES, encoding="utf-8")
    return path


def rows_file(folder: Path, rows: int, *, wrong_at: int | None = None, age: timedelta = timedelta()) -> Path:
    path = folder / "rows.parquet"
    ids = [f"p{index}" for index in range(rows)]
    if wrong_at is not None:
        ids[wrong_at] = ""
    time = datetime.now(UTC) - age
    table = pa.table({"patient": ids, "radius": [float(i) for i in range(rows)], "event_time": [time] * rows})
    pyarrow.parquet.write_table(table, path)
    return path


def test_apply_tells_what_is_new_changed_and_unchanged(redis_url, features, capsys):
    apply = ["apply", "--redis", redis_url, str(features)]
    assert main([*apply, "--dry-run"]) == 0
    assert "dry run" in capsys.readouterr().out
    assert main(apply) == 0
    assert capsys.readouterr().out.count(" new ") == 2
    features.write_text(FEATURES.replace("default: 9.0", "default: 8.0"), encoding="utf-8")
    assert main(apply) == 0
    out = capsys.readouterr().out
    assert ("default of radius 9.0 → 8.0" in out, "unchanged" in out) == (True, True)
    features.write_text(FEATURES.replace("float32", "float64"), encoding="utf-8")
    assert main(apply) == 1
    assert "means:radius" in capsys.readouterr().err


def test_load_get_and_check_work_on_what_was_applied(redis_url, features, tmp_path, capsys):
    main(["apply", "--redis", redis_url, str(features)])
    path = rows_file(tmp_path, 2_000)
    load = ["load", "--redis", redis_url, "--view", "means", "--chunk-rows", "500", str(path)]
    assert main(load) == 0
    out = capsys.readouterr().out
    assert "rows: 2,000, written: 2,000, kept newer: 0" in out
    assert "no such column: tags" in out
    assert not progress_path(path, "means").exists()

    assert main(["get", "--redis", redis_url, "patient=p7", "--json"]) == 0
    radius, tags, area = json.loads(capsys.readouterr().out)
    assert (radius["value"], radius["status"], radius["age_s"] < 60) == (7.0, "PRESENT", True)
    assert (tags["value"], tags["status"]) == (None, "NULL")
    assert (area["view"], area["status"], area["age_s"]) == ("worst", "MISSING", None)
    assert main(["get", "--redis", redis_url, "patient=p7", "--view", "means"]) == 0
    assert "radius" in capsys.readouterr().out

    assert main(["check", "--redis", redis_url, "--view", "means"]) == 0
    assert main(["check", "--redis", redis_url]) == 3
    assert "worst: there are no rows" in capsys.readouterr().out


def test_a_load_of_older_rows_is_counted_as_kept_newer_and_stale_rows_fail_the_check(
    redis_url, features, tmp_path, capsys
):
    main(["apply", "--redis", redis_url, str(features)])
    load = ["load", "--redis", redis_url, "--view", "means"]
    main([*load, str(rows_file(tmp_path, 10))])
    assert main([*load, str(rows_file(tmp_path, 20, age=timedelta(hours=1, seconds=1)))]) == 0
    assert "written: 10, kept newer: 10" in capsys.readouterr().out
    check = ["check", "--redis", redis_url, "--view", "means"]
    assert main(check) == 3
    assert main([*check, "--max-stale-share", "0.5"]) == 0


def test_a_load_that_fails_keeps_how_many_rows_are_in_redis(redis_url, features, tmp_path, capsys):
    main(["apply", "--redis", redis_url, str(features)])
    path = rows_file(tmp_path, 1_000, wrong_at=750)
    load = ["load", "--redis", redis_url, "--view", "means", "--chunk-rows", "100", str(path)]
    assert main(load) == 1
    assert "column patient, row 751" in capsys.readouterr().err
    assert read_progress(progress_path(path, "means"), path, "means") == 700
    assert main([*load, "--resume"]) == 1
    assert "column patient, row 751" in capsys.readouterr().err


def test_a_load_goes_on_after_the_rows_that_an_earlier_one_wrote(redis_url, features, tmp_path, capsys):
    main(["apply", "--redis", redis_url, str(features)])
    path, kept_in = rows_file(tmp_path, 1_000), tmp_path / "progress"
    write_progress(kept_in, path, "means", 600)
    load = ["load", "--redis", redis_url, "--view", "means", "--progress-file", str(kept_in), str(path)]
    assert main([*load, "--resume"]) == 0
    assert "rows: 400, written: 400" in capsys.readouterr().out
    assert not kept_in.exists()

    async def exist() -> list[int]:
        async with open_redis(redis_url) as redis:
            return [await redis.exists(row_key("means", f"p{index}")) for index in (0, 599, 600, 999)]

    assert asyncio.run(exist()) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["load", "--view", "nope", "rows.csv"], "registered: means, worst"),
        (["load", "--view", "means", "none.csv"], "No such file"),
        (["get", "visit=1"], "registered entities: patient"),
        (["get", f"patient={'x' * 300}"], "300 characters"),
        (["check", "--view", "nope"], "registered: means, worst"),
        (["apply", "none.yaml"], "cannot be read"),
    ],
)
def test_what_cannot_be_done_is_exit_code_1_and_one_plain_line(redis_url, features, capsys, arguments, says):
    main(["apply", "--redis", redis_url, str(features)])
    capsys.readouterr()
    assert main([arguments[0], "--redis", redis_url, *arguments[1:]]) == 1
    captured = capsys.readouterr()
    text = captured.err or captured.out
    assert says in text
    assert "Traceback" not in text


def test_a_redis_that_is_away_is_told_without_the_password(tmp_path, features, capsys):
    assert main(["apply", "--redis", f"unix://:hush@{tmp_path}/none.sock", str(features)]) == 1
    error = capsys.readouterr().err
    assert "none.sock" in error
    assert "hush" not in error
