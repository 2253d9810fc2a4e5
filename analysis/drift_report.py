"""What a comparison of a window with a baseline found: the JSON that `sekisho-analysis drift --json` writes."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final, Literal

import msgspec

REPORT_FORMAT: Final = 1

Verdict = Literal["drift", "ok", "too_few_rows", "no_baseline", "not_logged", "not_comparable"]
"""Of one column. Only `drift` and `ok` come with statistics."""

Outcome = Literal["drift", "ok", "undecided"]
"""Of the whole report; `undecided` where no column could be compared and nothing else was found."""

FindingKind = Literal["nulls", "out_of_range", "new_categories", "view_stale", "view_null", "view_missing"]


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Distances of the window from the baseline. None where a statistic does not fit the kind of column.

    `js_distance` is in base 2, 0 to 1. `wasserstein` is in standard deviations of the baseline. `chi_square` is
    Pearson's. `p_value` is the chance of such a PSI, or of so many values out of range, without a change; like
    `p_value_adjusted` (Benjamini-Hochberg) it is given only under 1,000 rows.
    """

    psi: float
    psi_threshold: float
    js_distance: float
    ks: float | None = None
    wasserstein: float | None = None
    chi_square: float | None = None
    p_value: float | None = None
    p_value_adjusted: float | None = None


class Shares(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of a sample's rows: null ones of all; out of range or of unknown category of those that have a value."""

    null: float
    out_of_range: float | None = None
    new_category: float | None = None


class Bar(msgspec.Struct, frozen=True):
    """One bin of the paired histogram: its name, and its share of the rows that have a value, before and now."""

    label: str
    baseline: float
    current: float


class ColumnDrift(msgspec.Struct, frozen=True, kw_only=True):
    """One feature, or one score of one slice, compared with the baseline.

    `version` and `variant` are set where only their rows were counted; an empty variant: the rows that no experiment
    assigned. `rows_baseline` and `rows` count rows as stored, nulls too.
    """

    kind: Literal["feature", "prediction"]
    name: str
    version: str | None = None
    variant: str | None = None
    verdict: Verdict
    reason: str
    rows_baseline: int = 0
    rows: int = 0
    statistics: Statistics | None = None
    shares_baseline: Shares | None = None
    shares: Shares | None = None
    histogram: tuple[Bar, ...] = ()


class QualityFinding(msgspec.Struct, frozen=True, kw_only=True):
    """A share of bad rows that grew past its threshold. `name` is a feature, an output (`y.…`) or a feature view."""

    kind: FindingKind
    name: str
    version: str | None = None
    variant: str | None = None
    share_baseline: float
    share: float
    threshold: float
    reason: str


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """When a difference is told.

    psi: the least PSI that counts as drift; chance raises it for few rows. share: the least increase of a share of bad
        rows.
    rows_min: fewer rows with a value, on either side, are not compared. p_value: under 1,000 rows, also to be met.
    """

    psi: float = 0.1
    share: float = 0.02
    rows_min: int = 50
    p_value: float = 0.05


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """What the window was compared with."""

    version: str
    rows: int
    fingerprint: str
    start: datetime | None = None
    end: datetime | None = None


class ServedSlice(msgspec.Struct, frozen=True):
    """How many rows one version served under one variant; the variant is empty where no experiment chose."""

    version: str
    variant: str
    rows: int


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at: the bounds asked for (`start <= ts < end`), and what was found between them.

    `weight` is the sum of sample weights, an estimate of the rows served. `rows_served` is the true number, where it
    was given; `coverage` is then the share of them that the log stands for, 0 to 1.
    """

    start: datetime | None
    end: datetime | None
    first_row: datetime
    last_row: datetime
    rows: int
    weight: float
    static_rows: int
    rows_served: int | None = None
    coverage: float | None = None
    shadow_included: bool = False


class DriftReport(msgspec.Struct, frozen=True, kw_only=True):
    """The whole comparison. Columns and findings are sorted worst first."""

    format: int = REPORT_FORMAT
    model: str
    version: str | None
    outcome: Outcome
    baseline: Baseline
    window: Window
    thresholds: Thresholds
    slices: tuple[ServedSlice, ...]
    features: tuple[ColumnDrift, ...]
    predictions: tuple[ColumnDrift, ...]
    quality: tuple[QualityFinding, ...]
    features_not_in_baseline: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[ColumnDrift, ...]:
        """Every column, worst first."""
        return worst_first(self.predictions + self.features)


def worst_first(columns: Iterable[ColumnDrift]) -> tuple[ColumnDrift, ...]:
    """Sort by verdict: drifted, compared, not compared; and within those by the PSI as a multiple of its threshold."""
    return tuple(sorted(columns, key=_badness))


def _badness(column: ColumnDrift) -> tuple[bool, bool, float, str, str, str]:
    statistics = column.statistics
    ratio = statistics.psi / statistics.psi_threshold if statistics else 0.0
    slice_name = (column.version or "", column.variant or "")
    return (column.verdict != "drift", statistics is None, -ratio, column.name, *slice_name)


def encode_report(report: DriftReport) -> bytes:
    """Encode as indented JSON. It never holds NaN or infinity."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
