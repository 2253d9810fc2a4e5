from pathlib import Path

import jsonschema
import msgspec
import pytest
import yaml

from feature_store.dtypes import Dtype
from feature_store.feature_views import features_json_schema, read_feature_views
from feature_store.row_layout import Column
from settings import ConfigurationError

REPOSITORY = Path(__file__).parents[3]
GOOD = """\
feature_views:
  patient_mean:
    entity: patient
    max_age: 30d
    description: of the last visit
    features:
      - {name: radius, dtype: float32, default: 0.0}
      - {name: tags, dtype: string}
      - {name: embedding, dtype: float16, length: 4, default: 0}
      - {name: seen, dtype: timestamp, default: 0}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "features.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        read_feature_views(written(folder, text))
    return caught.value


def test_a_good_file_gives_its_views_with_columns_age_and_filled_defaults(tmp_path):
    view = read_feature_views(written(tmp_path, GOOD))["patient_mean"]
    assert (view.entity, view.max_age_us) == ("patient", 30 * 86_400 * 1_000_000)
    assert [feature.column for feature in view.features] == [
        Column("radius", Dtype.FLOAT32),
        Column("tags", Dtype.STRING),
        Column("embedding", Dtype.FLOAT16, 4),
        Column("seen", Dtype.TIMESTAMP),
    ]
    assert [feature.filled_default for feature in view.features] == [0.0, None, [0, 0, 0, 0], 0]


@pytest.mark.parametrize(
    ("age", "seconds"), [("90s", 90), ("15m", 900), ("2h", 7_200), ("30d", 2_592_000), ("36500d", 36_500 * 86_400)]
)
def test_an_age_is_a_whole_number_and_a_unit(tmp_path, age, seconds):
    view = read_feature_views(written(tmp_path, GOOD.replace("30d", age)))["patient_mean"]
    assert view.max_age_us == seconds * 1_000_000


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("max_age: 30d", "max_age: 1.5d", 4, "smhd"),
        ("max_age: 30d", 'max_age: "30d\\n"', 4, "smhd"),
        ("max_age: 30d", "max_age: 36501d", 4, "more than a hundred years"),
        ("max_age: 30d", "max_age: 0d", 4, "smhd"),
        ("  patient_mean:", "  patient mean:", 2, "A-Za-z_"),
        ("entity: patient", "entity: 7", 3, "str"),
        ("description:", "descriptoin:", 5, "descriptoin"),
        ("dtype: float32", "dtype: float", 7, "float"),
        ("dtype: float32", "dtype: float16", 7, "float16 is for lists only"),
        ("dtype: string", "dtype: string, length: 3", 8, "list of strings"),
        ("name: tags", "name: radius", 8, "declared already"),
        ("name: tags", '"name": "tags\\n"', 8, "A-Za-z_"),
        ("default: 0.0", "default: high", 7, "expected a number (FP32), got str 'high'"),
        ("default: 0.0", "default: true", 7, "expected a number (FP32), got bool True"),
        ("default: 0.0", "default: .nan", 7, "finite"),
        ("default: 0.0", "default: 1.0e+39", 7, "within FP32"),
        ("length: 4, default: 0", "length: 4, default: [1, 2]", 9, "a list of 4 values, got 2 values"),
        ("length: 4", "length: 0", 9, ">= 1"),
        ("length: 4", "length: 16385", 9, "<= 16384"),
        ("dtype: float16, length: 4", "dtype: float64, length: 16384", 6, "at most 65536 are stored"),
        ("features:", "features: []\n    more:", 6, "length >= 1"),
    ],
)
def test_a_wrong_file_is_refused_with_the_line_and_what_was_expected(tmp_path, old, new, line, says):
    assert old in GOOD
    error = refused(tmp_path, GOOD.replace(old, new))
    assert error.line == line
    assert says in error.problem


def test_a_view_declared_twice_is_refused(tmp_path):
    assert "given already" in refused(tmp_path, GOOD + GOOD.partition("\n")[2]).problem


def test_the_json_schema_in_the_repository_is_the_one_of_the_types():
    stored = (REPOSITORY / "feature_store" / "features.schema.json").read_bytes()
    assert stored == features_json_schema()


def test_the_json_schema_accepts_a_good_file_and_refuses_an_unknown_key():
    schema = msgspec.json.decode(features_json_schema())
    document = yaml.safe_load(GOOD)
    jsonschema.validate(document, schema)
    document["feature_views"]["patient_mean"]["ttl"] = 3
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


NEAR_CACHED = GOOD.replace(
    "max_age: 30d\n", "max_age: 30d\n    near_cache: {max_age: 500ms, stale_if_unavailable: 10m}\n"
)


@pytest.mark.parametrize(
    ("declared", "max_age_us", "stale_us"),
    [
        ("{max_age: 500ms, stale_if_unavailable: 10m}", 500_000, 600_000_000),
        ("{max_age: 2s}", 2_000_000, 0),
        ("{stale_if_unavailable: 7d}", 0, 7 * 86_400 * 1_000_000),
    ],
)
def test_a_near_cache_has_ages_in_microseconds_and_is_off_where_none_is_declared(
    tmp_path, declared, max_age_us, stale_us
):
    text = NEAR_CACHED.replace("{max_age: 500ms, stale_if_unavailable: 10m}", declared)
    policy = read_feature_views(written(tmp_path, text))["patient_mean"].near_cache_policy
    assert (policy.max_age_us, policy.stale_if_unavailable_us) == (max_age_us, stale_us)
    assert not read_feature_views(written(tmp_path, GOOD))["patient_mean"].near_cache_policy


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        ("{}", "give max_age, stale_if_unavailable or both"),
        ("{max_age: 500}", "max_age"),
        ("{max_age: 0s}", "max_age"),
        ("{max_age: 500us}", "max_age"),
        ("{stale_if_unavailable: 8d}", "more than seven days"),
        ("{max_age: 2m, stale_if_unavailable: 1m}", "shorter than max_age"),
        ("{max_entries: 5}", "max_entries"),
    ],
)
def test_a_near_cache_that_would_do_nothing_or_too_much_is_refused_with_its_line(tmp_path, declared, problem):
    fault = refused(tmp_path, NEAR_CACHED.replace("{max_age: 500ms, stale_if_unavailable: 10m}", declared))
    assert fault.line == 5
    assert problem in fault.problem
