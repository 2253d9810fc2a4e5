"""How numbers, intervals, times and verdicts are written in reports."""

from datetime import UTC, datetime
from typing import Final

from analysis.experiment_results.report import Bounds, Effect, Stage, Verdict

VERDICTS: Final[dict[Verdict, str]] = {
    "better": "better",
    "worse": "worse",
    "no_effect_found": "no effect found",
    "too_few_units": "too few units",
}

STAGES: Final[dict[Stage, str]] = {"assigned": "assigned", "served": "served", "outcome": "with an outcome"}


def effect_words(absolute: Effect, relative: Effect | None, alpha: float) -> str:
    """Say an effect with its interval: the relative one and the anytime-valid one, where there are such."""
    shown = absolute if relative is None else relative
    bounds, kind = (shown.fixed, "fixed-horizon") if shown.anytime is None else (shown.anytime, "anytime")
    is_relative = relative is not None
    interval = interval_words(bounds, relative=is_relative)
    return f"{number_words(shown.estimate, relative=is_relative)} ({level(alpha)} {kind} interval {interval})"


def interval_words(bounds: Bounds, *, relative: bool) -> str:
    """Say an interval."""
    return f"{number_words(bounds.low, relative=relative)} to {number_words(bounds.high, relative=relative)}"


def number_words(number: float, *, relative: bool) -> str:
    """Write an effect with its sign: as a percentage, or with four digits."""
    return percent(number) if relative else f"{number:+.4g}"


def percent(share: float) -> str:
    """Write a relative effect, with its sign."""
    scaled = share * 100
    if abs(scaled) >= 10_000:
        return f"{scaled:+.2e}%"
    return f"{scaled:+.{2 if abs(scaled) < 10 else 1}f}%"


def level(alpha: float) -> str:
    """Say how sure an interval is: 95% for an alpha of 0.05."""
    return f"{(1 - alpha) * 100:.4g}%"


def mean_words(number: float | None) -> str:
    """Write a mean, with five digits; a dash where there is none."""
    return "-" if number is None else f"{number:,.5g}"


def p_words(p_value: float | None) -> str:
    """Write a p-value; a dash where there is none."""
    if p_value is None:
        return "-"
    return "< 0.0001" if p_value < 1e-4 else f"{p_value:.2g}"


def quantile_words(quantile: float) -> str:
    """Name a quantile: p95 for 0.95."""
    return f"p{quantile * 100:g}"


def counted(number: int, noun: str) -> str:
    """Write a number of things."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def time_words(moment: datetime) -> str:
    """Write a time."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
