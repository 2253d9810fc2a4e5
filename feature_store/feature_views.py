"""features.yaml: which feature views there are. A fault is told with file, line and what was expected."""

import re
from pathlib import Path
from typing import Annotated

import msgspec

from feature_store.dtypes import NATIVE_DATATYPE, Dtype
from feature_store.errors import RowTooLarge, WrongFeatureValue
from feature_store.feature_value import pack_value
from feature_store.registered_view import NEAR_CACHE_OFF, NearCachePolicy
from feature_store.row_layout import Column, place_columns
from settings import ConfigurationError, read_yaml
from settings.yaml_file import line_of

VIEWS_PER_FILE_MAX = 1_000
FEATURES_PER_VIEW_MAX = 1_000
LIST_LENGTH_MAX = 16_384
MAX_AGE_S_MAX = 100 * 365 * 86_400
"""A hundred years: older event times than that are a unit mistaken for another."""

NEAR_CACHE_AGE_S_MAX = 7 * 86_400
"""A week: a reader that had no answer of Redis for longer has nothing to serve."""

DEFAULT_STRING_LENGTH_MAX = 1_024

# Python's $ also matches before a final newline, which `"a\n"` in YAML can make; JSON Schema's does not.
NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,63}$(?!\n)"
AGE_PATTERN = r"^[1-9][0-9]{0,9}[smhd]$(?!\n)"
SHORT_AGE_PATTERN = r"^[1-9][0-9]{0,9}(ms|[smhd])$(?!\n)"

Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN, description="A letter or _, then letters, digits or _.")]
# A key's pattern is checked by `_check_view`, which can say which key it is; here it is for the JSON Schema alone.
ViewName = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": NAME_PATTERN})]
Age = Annotated[str, msgspec.Meta(pattern=AGE_PATTERN, description="A whole number and s, m, h or d: `90s`, `30d`.")]
ShortAge = Annotated[
    str, msgspec.Meta(pattern=SHORT_AGE_PATTERN, description="A whole number and ms, s, m, h or d: `500ms`, `10m`.")
]
Description = Annotated[str, msgspec.Meta(max_length=1_000)]
Value = bool | int | float | Annotated[str, msgspec.Meta(max_length=DEFAULT_STRING_LENGTH_MAX)]

_UNIT_US = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}


class Feature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One feature. With `length` it is a fixed-size list; its default is then a list, or one value for all elements."""

    name: Name
    dtype: Dtype
    length: Annotated[int, msgspec.Meta(ge=1, le=LIST_LENGTH_MAX)] | None = None
    default: Value | list[Value] | None = None
    description: Description = ""

    @property
    def column(self) -> Column:
        """The feature as a schema knows it."""
        return Column(self.name, self.dtype, self.length)

    @property
    def filled_default(self) -> object:
        """The default with one value repeated for a list. None: no default."""
        if self.length is not None and self.default is not None and not isinstance(self.default, list):
            return [self.default] * self.length
        return self.default


class NearCache(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What readers may do with rows that they remember, by the time since they read them."""

    max_age: ShortAge | None = None
    stale_if_unavailable: ShortAge | None = None


class FeatureView(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Features of one kind of entity that are written together. `max_age` is by event time, and checked on read."""

    entity: Name
    max_age: Age
    features: Annotated[list[Feature], msgspec.Meta(min_length=1, max_length=FEATURES_PER_VIEW_MAX)]
    description: Description = ""
    near_cache: NearCache | None = None

    @property
    def max_age_us(self) -> int:
        """The age limit in µs."""
        return _age_us(self.max_age)

    @property
    def near_cache_policy(self) -> NearCachePolicy:
        """The near cache's ages in µs."""
        if self.near_cache is None:
            return NEAR_CACHE_OFF
        return NearCachePolicy(
            max_age_us=_age_us(self.near_cache.max_age),
            stale_if_unavailable_us=_age_us(self.near_cache.stale_if_unavailable),
        )


class FeatureViewsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    feature_views: Annotated[dict[ViewName, FeatureView], msgspec.Meta(min_length=1, max_length=VIEWS_PER_FILE_MAX)]


def read_feature_views(path: Path) -> dict[str, FeatureView]:
    """Read features.yaml → views by name. Raises ConfigurationError, and never anything else."""
    views = read_yaml(path, FeatureViewsFile).feature_views
    for name, view in views.items():
        _check_view(path, name, view)
    return views


def features_json_schema() -> bytes:
    """The JSON Schema of features.yaml: what `feature_store/features.schema.json` holds."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(FeatureViewsFile)}
    return msgspec.json.format(msgspec.json.encode(schema), indent=2) + b"\n"


def check_default(feature: Feature) -> None:
    """Check that a default is of its feature's type. Raises WrongFeatureValue."""
    default = feature.filled_default
    if default is not None:
        pack_value(feature.name, default, NATIVE_DATATYPE[feature.dtype], feature.length)


def _age_us(age: str | None) -> int:
    if age is None:
        return 0
    number = age.rstrip("msdh")
    return int(number) * _UNIT_US[age[len(number) :]]


def _check_view(path: Path, name: str, view: FeatureView) -> None:
    if not re.search(NAME_PATTERN, name):
        line = line_of(path, "feature_views", name)
        raise ConfigurationError(path, line, f"a view's name matches {NAME_PATTERN}, not {name[:70]!r}")
    if view.max_age_us > MAX_AGE_S_MAX * 1_000_000:
        line = line_of(path, "feature_views", name, "max_age")
        raise ConfigurationError(path, line, f"max_age {view.max_age} in `{name}` is more than a hundred years")
    _check_near_cache(path, name, view)
    names: set[str] = set()
    for index, feature in enumerate(view.features):
        problem = _problem(feature, names)
        if problem is not None:
            key, text = problem
            line = line_of(path, "feature_views", name, "features", index, key)
            raise ConfigurationError(path, line, f"{text} in `{name}.{feature.name}`")
        names.add(feature.name)
    try:
        place_columns(name, 1, [feature.column for feature in view.features])
    except RowTooLarge as error:
        line = line_of(path, "feature_views", name, "features")
        raise ConfigurationError(
            path, line, f"a row of `{name}` takes {error.row_bytes} bytes; at most {error.row_bytes_max} are stored"
        ) from error


def _check_near_cache(path: Path, name: str, view: FeatureView) -> None:
    if view.near_cache is None:
        return
    policy = view.near_cache_policy
    line = line_of(path, "feature_views", name, "near_cache")
    if not policy:
        raise ConfigurationError(path, line, f"near_cache in `{name}`: give max_age, stale_if_unavailable or both")
    if max(policy.max_age_us, policy.stale_if_unavailable_us) > NEAR_CACHE_AGE_S_MAX * 1_000_000:
        raise ConfigurationError(path, line, f"an age of near_cache in `{name}` is more than seven days")
    if 0 < policy.stale_if_unavailable_us < policy.max_age_us:
        raise ConfigurationError(
            path, line, f"near_cache in `{name}`: stale_if_unavailable is shorter than max_age, and would do nothing"
        )


def _problem(feature: Feature, names_before: set[str]) -> tuple[str, str] | None:
    # → the key at fault, what is wrong
    if feature.name in names_before:
        return "name", f"feature {feature.name} was declared already"
    if feature.dtype is Dtype.FLOAT16 and feature.length is None:
        return "dtype", "float16 is for lists only: give a length, or use float32"
    if feature.dtype is Dtype.STRING and feature.length is not None:
        return "length", "a list of strings has no fixed size: leave length out"
    try:
        check_default(feature)
    except WrongFeatureValue as error:
        return "default", f"default: expected {error.expected}, got {error.got}"
    return None
