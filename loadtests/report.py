"""The tables of a run, for a terminal and for the documentation."""

from rich.table import Table

from loadtests.bench_result import BenchResult
from loadtests.goals import GoalResult
from loadtests.loads import ONE, SIXTEEN, SIXTY_FOUR
from loadtests.stacks import YARDSTICK
from loadtests.summary import Summary, find

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


class MarkersMissing(ValueError):
    """A page has no place for the tables."""

    def __init__(self) -> None:
        super().__init__(f"the page has no {BEGIN} ... {END} to write the tables between")


Rows = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Column headings, then rows of as many cells; the first two columns are text, the others figures."""


def throughput_rows(summaries: list[Summary]) -> Rows:
    """Closed loop: requests a second, latencies and costs."""
    heads = ("stack", "connections", "requests/s", "x yardstick", "p50 ms", "p99 ms", "CPU ms/request", "MB")
    rows = []
    for each in summaries:
        if not each.load.startswith("closed-"):
            continue
        rate = f"{each.rate_per_s.median:,.0f}"
        if each.rounds > 1:
            rate += f" ({each.rate_per_s.least:,.0f}-{each.rate_per_s.most:,.0f})"
        connections = each.load.removeprefix("closed-")
        figures = (rate, _ratio(each.rate_ratio), _ms(each.p50_ms.median), _ms(each.p99_ms.median))
        rows.append((each.stack, connections, *figures, _costs(each.cpu_s_per_1000, 3), _costs(each.memory_mb, 0)))
    return heads, rows


def latency_rows(summaries: list[Summary]) -> Rows:
    """Open loop and batches: latencies from the intended send time."""
    heads = ("stack", "load", "answered/s", "p50 ms", "p99 ms", "p99.9 ms", "p99 x yardstick", "unanswered")
    rows = []
    for each in summaries:
        if each.load.startswith("closed-"):
            continue
        latencies = (_ms(each.p50_ms.median), _ms(each.p99_ms.median), _ms(each.p999_ms.median))
        answered = f"{each.rate_per_s.median:,.0f}"
        rows.append((each.stack, each.load, answered, *latencies, _ratio(each.p99_ratio), f"{each.unanswered:,}"))
    return heads, rows


def goal_rows(goals: list[GoalResult]) -> Rows:
    """Each goal, what it asks for, what was measured."""
    words = {True: "reached", False: "not reached", None: "not measured"}
    rows = []
    for goal in goals:
        measured = "-" if goal.measured is None else f"{goal.measured:.2f}"
        asked = f"{'at least' if goal.at_least else 'at most'} {goal.bound:g}"
        rows.append((goal.text, words[goal.reached], asked, measured))
    return ("goal", "", "asked", "measured"), rows


def rich_table(title: str, rows: Rows) -> Table:
    """A table for the terminal."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    heads, body = rows
    for i, head in enumerate(heads):
        table.add_column(head, justify="left" if i < 1 else "right", overflow="fold")
    for row in body:
        table.add_row(*row)
    return table


def markdown_table(rows: Rows) -> str:
    """The same table for a page."""
    heads, body = rows
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (heads, rule, *body))


def generator_note(summaries: list[Summary]) -> str | None:
    """What the generator itself reached and cost against the yardstick, or None where that was not run."""
    found = find(summaries, YARDSTICK, SIXTY_FOUR.name) or find(summaries, YARDSTICK, SIXTEEN.name)
    found = found or find(summaries, YARDSTICK, ONE.name)
    if found is None:
        return None
    return (
        f"The load generator reached {found.rate_per_s.median:,.0f} requests/s against {YARDSTICK} ({found.load}), "
        f"with {found.generator_cpu_share:.0%} of one core."
    )


def markdown_report(result: BenchResult) -> str:
    """Everything of a run that a page shows."""
    machine = result.machine
    origin = (
        f"Run of {result.started_at[:10]}, commit `{result.commit}`: {result.rounds} rounds of "
        f"{result.seconds:g} s a cell on {machine.cores} cores ({machine.cpu}), {machine.memory_gb:.0f} GB, Python {machine.python}, kernel "
        f"{machine.kernel}. Medians; least and most round in brackets."
    )
    parts = [
        origin,
        markdown_table(throughput_rows(result.summaries)),
        markdown_table(latency_rows(result.summaries)),
        generator_note(result.summaries) or "",
        markdown_table(goal_rows(result.goals)),
    ]
    return "\n\n".join(part for part in parts if part)


def with_report(page: str, report: str) -> str:
    """A page with the report between its markers. Raises MarkersMissing."""
    before, found_begin, rest = page.partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not found_begin or not found_end:
        raise MarkersMissing
    return f"{before}{BEGIN}\n\n{report}\n\n{END}{after}"


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if value < 1 else f"{value:.2f}"


def _costs(by_role: dict[str, float], decimals: int) -> str:
    return ", ".join(f"{role} {value:.{decimals}f}" for role, value in by_role.items())
