"""The baseline profile: how every feature and score of a model was distributed when it was trained.

Made once, kept beside the model, and compared with what serving logged. It holds counts over frozen bins and no rows.
"""

from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from analysis.errors import UnreadableFile
from contracts.prediction_record import STATUSES

PROFILE_FORMAT: Final = 1
PROFILE_BYTES_MAX = 256 * 1024 * 1024
"""Ten thousand columns of 50 categories with long names stay well under it."""

Count = Annotated[float, msgspec.Meta(ge=0)]


class NumericBins(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="numeric", tag_field="kind"):
    """Bins of a number, cut at quantiles of the baseline alone.

    `lower_edges` (bins,) rise strictly; bin i holds `lower_edges[i] <= x < lower_edges[i + 1]`, the last one
    `lower_edges[-1] <= x <= upper`. A value that many rows share has a bin of its own.
    `centres` (bins,) are the baseline's mean values in each bin: where a distance sees the rows of the bin.
    Counts over these bins have two more places: first under-range, last over-range.
    """

    lower_edges: Annotated[tuple[float, ...], msgspec.Meta(min_length=1, max_length=1_000)]
    upper: float
    centres: tuple[float, ...]

    @property
    def places(self) -> int:
        """How many counts belong to these bins."""
        return len(self.lower_edges) + 2


class CategoryBins(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="categories", tag_field="kind"):
    """The baseline's most frequent values, most frequent first. Counts have one more place: every other value."""

    categories: Annotated[tuple[bool | int | str, ...], msgspec.Meta(max_length=1_000)]

    @property
    def places(self) -> int:
        """How many counts belong to these bins."""
        return len(self.categories) + 1


STATUS_BINS: Final = CategoryBins(STATUSES)
"""Over which the statuses of a feature view are counted."""


class Moments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of the finite values. `std` is the population's (divided by n). Null where they do not fit a float."""

    mean: float | None
    std: float | None
    minimum: float
    maximum: float


class ColumnProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One column of the baseline. Feature: `view.feature`; score: the output's name; status: the view's name.

    `rows` counts rows as stored. `nulls` and `counts` are in effective rows: equal to rows where nothing was sampled,
    else the weighted counts scaled to Kish's effective sample size. NaN counts as null.
    """

    name: str
    dtype: str
    rows: Annotated[int, msgspec.Meta(ge=0)]
    nulls: Count
    bins: NumericBins | CategoryBins
    counts: tuple[Count, ...]
    moments: Moments | None = None


class ScoreProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The scores that one version gave. An empty version stands for every version."""

    version: str
    column: ColumnProfile


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The baseline of one model: its features as `view.feature`, and its scores by version and output.

    `fingerprint` is the SHA-256 over every column's name, type and sorted values: the order of rows, files and columns
    does not change it. `start` and `end` are the first and last times of rows that came from a prediction log.
    """

    format: int = PROFILE_FORMAT
    model: str
    version: str = ""
    rows: Annotated[int, msgspec.Meta(ge=1)]
    fingerprint: str
    start: datetime | None = None
    end: datetime | None = None
    features: tuple[ColumnProfile, ...]
    scores: tuple[ScoreProfile, ...] = ()
    view_statuses: tuple[ColumnProfile, ...] = ()


def encode_profile(profile: Profile) -> bytes:
    """Encode as indented JSON, fields in the order of the type."""
    return msgspec.json.format(msgspec.json.encode(profile), indent=1) + b"\n"


def decode_profile(data: bytes, path: Path = Path("profile.json")) -> Profile:
    """Decode and check a profile. Raises UnreadableFile, which names `path`."""
    if len(data) > PROFILE_BYTES_MAX:
        raise UnreadableFile(path, f"{len(data)} bytes; a profile has at most {PROFILE_BYTES_MAX}")
    try:
        found = msgspec.json.decode(data, type=dict[str, msgspec.Raw]).get("format")
        if found is not None and bytes(found) != str(PROFILE_FORMAT).encode():
            raise UnreadableFile(path, f"profile format {bytes(found).decode()} is not known here; {PROFILE_FORMAT} is")
        profile = msgspec.json.decode(data, type=Profile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableFile(path, f"is not a profile: {error}. Make one with `sekisho-analysis profile`") from error
    for column in (*profile.features, *(score.column for score in profile.scores), *profile.view_statuses):
        _check_column(column, path)
    for status in profile.view_statuses:
        if status.bins != STATUS_BINS:
            raise UnreadableFile(path, f"view {status.name!r}: expected counts over {', '.join(STATUSES)}")
    return profile


def read_profile(path: Path) -> Profile:
    """Read a profile file. Raises UnreadableFile."""
    try:
        size = path.stat().st_size
        if size > PROFILE_BYTES_MAX:
            raise UnreadableFile(path, f"{size} bytes; a profile has at most {PROFILE_BYTES_MAX}")
        return decode_profile(path.read_bytes(), path)
    except OSError as error:
        raise UnreadableFile(path, f"cannot be read: {error.strerror}") from error


def counts_of(column: ColumnProfile) -> NDArray[np.float64]:
    """Give the column's counts as an array (places,)."""
    return np.asarray(column.counts, dtype=np.float64)


def _check_column(column: ColumnProfile, path: Path) -> None:
    bins = column.bins
    if len(column.counts) != bins.places:
        raise UnreadableFile(path, f"{column.name!r}: {len(column.counts)} counts for {bins.places} places")
    if isinstance(bins, CategoryBins):
        if len(set(map(str, bins.categories))) != len(bins.categories):
            raise UnreadableFile(path, f"{column.name!r}: a category is listed twice")
        return
    if len(bins.centres) != len(bins.lower_edges):
        raise UnreadableFile(path, f"{column.name!r}: {len(bins.centres)} centres for {len(bins.lower_edges)} bins")
    rising = all(low < high for low, high in pairwise(bins.lower_edges))
    if not rising or bins.upper < bins.lower_edges[-1]:
        raise UnreadableFile(path, f"{column.name!r}: the edges of its bins do not rise")
