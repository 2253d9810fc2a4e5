"""A plan of an experiment's size for a terminal."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from analysis.experiment_results.plan_power import PlannedSize, PowerPlan
from analysis.experiment_results.report_words import mean_words, percent


def render_plan(plan: PowerPlan) -> RenderableType:
    """Render a plan for rich; it is readable at 80 columns, and without colour."""
    source = f", over {plan.baseline_units:,} units of the log" if plan.baseline_units else ""
    rate = "" if plan.units_per_day is None else f" New units a day, on average: {plan.units_per_day:,.0f}."
    shares = ", ".join(f"{arm} {share:.1%}" for arm, share in zip(plan.arms, plan.shares, strict=True))
    divided = f" / {len(plan.arms) - 1} (Bonferroni)" if len(plan.arms) > 2 else ""
    return Group(
        Text(f"{plan.metric}: {_told(plan)}", style="bold"),
        Text(f"Mean {mean_words(plan.mean)}, standard deviation {mean_words(plan.deviation)}{source}.{rate}"),
        Text(f"Alpha {plan.alpha:g}{divided}, power {plan.power:g}. Arms: {shares}."),
        Text(),
        _sizes(plan),
        Text(
            "At the end: for one look at that size. Any time: with the same power there, and free to look and to stop "
            "before; put that number into metrics.units_planned.",
            style="dim",
        ),
    )


def _told(plan: PowerPlan) -> str:
    wanted = plan.wanted
    effect = percent(plan.mde_rel)[1:]
    if wanted.units is None:
        return f"a relative effect of {effect} cannot be found with any number of units (the mean is 0, or too small)"
    by_arm = ", ".join(f"{arm} {units:,}" for arm, units in zip(plan.arms, wanted.by_arm, strict=True))
    days = "" if wanted.days is None else f", about {_days(wanted.days)}"
    return f"a relative effect of {effect} takes {wanted.units:,} units{days} ({by_arm})"


def _sizes(plan: PowerPlan) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("Effect", no_wrap=True)
    for name in ("Units, at the end", "Days", "Units, any time", "Days"):
        table.add_column(name, justify="right", no_wrap=True)
    for size in plan.sizes:
        style = "bold" if size.mde_rel == plan.mde_rel else ""
        table.add_row(*(Text(cell, style=style) for cell in _cells(size)))
    return table


def _cells(size: PlannedSize) -> tuple[str, ...]:
    units = "-" if size.units is None else f"{size.units:,}"
    anytime = "-" if size.units_anytime is None else f"{size.units_anytime:,}"
    return (percent(size.mde_rel)[1:], units, _short(size.days), anytime, _short(size.days_anytime))


def _short(days: float | None) -> str:
    return "-" if days is None else f"{days:,.1f}"


def _days(days: float) -> str:
    return f"{days:,.1f} days" if days < 10 else f"{days:,.0f} days"
