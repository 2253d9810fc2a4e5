"""The tables that every run has, for a terminal and for the documentation."""

from rich.table import Table

from loadtests.bench_result import BenchResult
from loadtests.cell import FOREIGN_CORES_MAX
from loadtests.goals import GoalResult
from loadtests.load_generator import DRAIN_S
from loadtests.loads import SIXTY_FOUR
from loadtests.percentiles import Spread, spread
from loadtests.stacks import YARDSTICK
from loadtests.summary import Summary, find

ROLES = ("server", "gateway", "workers", "redis")
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


class MarkersMissing(ValueError):
    """A page has no place for the tables."""

    def __init__(self, begin: str, end: str) -> None:
        super().__init__(f"the page has no {begin} ... {end} to write the tables between")
        self.begin, self.end = begin, end


Rows = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Column headings, then rows of as many cells."""


def throughput_rows(summaries: list[Summary]) -> Rows:
    """Closed loop: requests a second, and how long one took."""
    heads = ("stack", "conns", "req/s", "min-max", "x bare", "p50 ms", "p99 ms")
    rows: list[tuple[str, ...]] = []
    for each in _under(summaries, "closed-"):
        rate = each.rate_per_s
        row = (
            marked(each),
            each.load.removeprefix("closed-"),
            f"{rate.median:,.0f}",
            f"{rate.least:,.0f}-{rate.most:,.0f}",
        )
        rows.append(
            (*row, spread_text(each.rate_ratio), milliseconds(each.p50_ms.median), milliseconds(each.p99_ms.median))
        )
    return heads, rows


def latency_rows(summaries: list[Summary]) -> Rows:
    """Open loop and batches: latencies from the intended send time."""
    heads = ("stack", "load", "req/s", "p50 ms", "p99 ms", "p99.9 ms", "x bare")
    rows: list[tuple[str, ...]] = []
    for each in _under(summaries, "open-", "batch-"):
        latencies = (
            milliseconds(each.p50_ms.median),
            milliseconds(each.p99_ms.median),
            milliseconds(each.p999_ms.median),
        )
        answered = f"{each.rate_per_s.median:,.0f}"
        rows.append((marked(each), each.load, answered, *latencies, spread_text(each.p99_ratio)))
    return heads, rows


def cost_rows(summaries: list[Summary]) -> Rows:
    """CPU time of a request in µs and resident memory in MB, by role of process."""
    heads = ("stack", "load", *ROLES, "total", "MB")
    rows: list[tuple[str, ...]] = []
    for each in _under(summaries, "closed-", "open-", "batch-"):
        # Seconds of 1,000 requests are milliseconds of one.
        cpu_us = {role: cpu_s * 1e3 for role, cpu_s in each.cpu_s_per_1000.items()}
        by_role = (f"{cpu_us[role]:,.0f}" if role in cpu_us else "-" for role in ROLES)
        rows.append(
            (marked(each), each.load, *by_role, f"{sum(cpu_us.values()):,.0f}", f"{sum(each.memory_mb.values()):,.0f}")
        )
    return heads, rows


def goal_rows(goals: list[GoalResult]) -> Rows:
    """Each goal, what it asks for, what was measured: the median of the rounds, and the least and most."""
    words = {True: "reached", False: "not reached", None: "not measured"}
    rows: list[tuple[str, ...]] = []
    for goal in goals:
        asked = f"{'at least' if goal.at_least else 'at most'} {goal.bound:g}"
        between = "-" if goal.least is None else f"{multiple(goal.least)}-{multiple(goal.most)}"
        rows.append((goal.text, words[goal.reached], asked, multiple(goal.measured), between))
    return ("goal", "", "asked", "found", "min-max"), rows


def rich_table(title: str, rows: Rows) -> Table:
    """A table for the terminal."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    heads, body = rows
    for i, head in enumerate(heads):
        table.add_column(head, justify="left" if i < 1 else "right", no_wrap=True)
    for row in body:
        table.add_row(*row)
    return table


def markdown_table(rows: Rows) -> str:
    """The same table for a page."""
    heads, body = rows
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (heads, rule, *body))


def notes(summaries: list[Summary]) -> list[str]:
    """What a reader of the tables must know besides: what the generator itself can do, and who did not keep up."""
    late = [
        f"{each.stack}, {each.load}: {each.unanswered:,} requests had no answer {DRAIN_S:g} s after the last was due. "
        "They count with the time that they had waited."
        for each in summaries
        if each.unanswered
    ]
    found = find(summaries, YARDSTICK, SIXTY_FOUR.name)
    if found is None:
        return late
    reached = (
        f"The load generator reached {found.rate_per_s.median:,.0f} requests/s against {YARDSTICK} at 64 connections, "
        f"with {found.generator_cpu_share:.0%} of one core."
    )
    return [reached, disturbance(summaries), *late]


def disturbance(summaries: list[Summary]) -> str:
    """How much other programs were in the way."""
    disturbed = spread([each.foreign_cores for each in summaries])
    return (
        f"Other programs on the machine used {disturbed.median:.2f} of its cores while cells were measured, and "
        f"{disturbed.most:.2f} in the worst. * marks {sum(each.disturbed for each in summaries)} of "
        f"{len(summaries)} stacks and loads, where it was more than {FOREIGN_CORES_MAX:g} in at least one round."
    )


def origin(result: BenchResult) -> str:
    """Where and from what a run's figures came, in a sentence."""
    machine = result.machine
    return (
        f"Run of {result.started_at[:10]}, commit `{result.commit}`: {result.rounds} rounds of {result.seconds:g} s a "
        f"cell on {machine.cores} cores ({machine.cpu}), {machine.memory_gb:.0f} GB, Python {machine.python}, kernel "
        f"{machine.kernel}. Figures are medians of the rounds; ratios are taken within a round, and shown with "
        "minimum and maximum."
    )


def with_report(page: str, report: str, begin: str = BEGIN, end: str = END) -> str:
    """A page with the report between its markers. Raises MarkersMissing."""
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise MarkersMissing(begin, end)
    return f"{before}{begin}\n\n{report}\n\n{end}{after}"


def milliseconds(value: float) -> str:
    """A latency, as precise as it is worth."""
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def multiple(value: float | None) -> str:
    """A ratio; a dash where there is none."""
    return "-" if value is None else f"{value:.3f}" if abs(value) < 1 else f"{value:,.2f}"


def spread_text(value: Spread | None) -> str:
    """A median with least and most, which are left out where they are the same; a dash where there is none."""
    if value is None:
        return "-"
    between = f" ({multiple(value.least)}-{multiple(value.most)})" if value.least < value.most else ""
    return multiple(value.median) + between


def marked(summary: Summary) -> str:
    """The stack's name, with a star where other programs were busy meanwhile."""
    return f"{summary.stack} *" if summary.disturbed else summary.stack


def _under(summaries: list[Summary], *prefixes: str) -> list[Summary]:
    return [each for each in summaries if each.load.startswith(prefixes)]
