import json

import numpy as np
import pyarrow as pa
import pytest

from analysis import make_profile
from analysis.errors import UnreadableFile
from analysis.profile import PROFILE_BYTES_MAX, decode_profile, encode_profile, read_profile


@pytest.fixture
def document():
    table = pa.table({"v.x": np.arange(100.0), "v.c": ["a", "b"] * 50})
    return json.loads(encode_profile(make_profile(table, model="m", bins=4)))


def decode(document):
    return decode_profile(json.dumps(document).encode())


def test_a_profile_is_read_as_it_was_written(tmp_path):
    profile = make_profile(pa.table({"v.x": np.arange(100.0), "v.b": [True, False] * 50}), model="m")
    path = tmp_path / "profile.json"
    path.write_bytes(encode_profile(profile))
    assert read_profile(path) == profile


def test_an_unknown_format_is_refused_by_its_number(document):
    document["format"] = 9
    with pytest.raises(UnreadableFile, match="profile format 9 is not known here; 1 is"):
        decode(document)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"format": 1}', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_profile_is_refused_with_advice(data):
    with pytest.raises(UnreadableFile, match="Make one with `sekisho-analysis profile`"):
        decode_profile(data)


def test_counts_that_do_not_fit_the_bins_are_refused(document):
    document["features"][0]["counts"].pop()
    with pytest.raises(UnreadableFile, match=r"'v\.x': 5 counts for 6 places"):
        decode(document)


def test_edges_that_fall_are_refused(document):
    document["features"][0]["bins"]["lower_edges"][2] = 0.0
    with pytest.raises(UnreadableFile, match="edges of its bins do not rise"):
        decode(document)


def test_centres_that_do_not_fit_the_bins_are_refused(document):
    document["features"][0]["bins"]["centres"].pop()
    with pytest.raises(UnreadableFile, match="3 centres for 4 bins"):
        decode(document)


def test_a_category_listed_twice_is_refused(document):
    document["features"][1]["bins"]["categories"] = ["a", "a"]
    with pytest.raises(UnreadableFile, match="category is listed twice"):
        decode(document)


def test_a_negative_count_is_refused(document):
    document["features"][0]["counts"][0] = -1
    with pytest.raises(UnreadableFile, match="counts"):
        decode(document)


def test_statuses_over_other_bins_are_refused(document):
    document["view_statuses"] = [document["features"][1]]
    with pytest.raises(UnreadableFile, match="expected counts over PRESENT"):
        decode(document)


def test_a_missing_file_is_refused_by_its_name(tmp_path):
    with pytest.raises(UnreadableFile, match=r"absent\.json: cannot be read: No such file"):
        read_profile(tmp_path / "absent.json")


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(PROFILE_BYTES_MAX + 1)
    with pytest.raises(UnreadableFile, match="a profile has at most"):
        read_profile(path)
