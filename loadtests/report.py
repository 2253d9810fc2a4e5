"""The tables of a run, for a terminal and for the documentation."""

from rich.table import Table

from loadtests.bench_result import BenchResult
from loadtests.goals import GoalResult
from loadtests.load_generator import DRAIN_S
from loadtests.loads import SIXTY_FOUR
from loadtests.percentiles import spread
from loadtests.stacks import PRODUCT, YARDSTICK
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
    for each in _of(summaries, closed=True):
        rate = each.rate_per_s
        row = (
            each.stack,
            each.load.removeprefix("closed-"),
            f"{rate.median:,.0f}",
            f"{rate.least:,.0f}-{rate.most:,.0f}",
        )
        rows.append(
            (*row, multiple(each.rate_ratio), milliseconds(each.p50_ms.median), milliseconds(each.p99_ms.median))
        )
    return heads, rows


def latency_rows(summaries: list[Summary]) -> Rows:
    """Open loop and batches: latencies from the intended send time."""
    heads = ("stack", "load", "req/s", "p50 ms", "p99 ms", "p99.9 ms", "x bare")
    rows: list[tuple[str, ...]] = []
    for each in _of(summaries, closed=False):
        latencies = (
            milliseconds(each.p50_ms.median),
            milliseconds(each.p99_ms.median),
            milliseconds(each.p999_ms.median),
        )
        answered = f"{each.rate_per_s.median:,.0f}"
        rows.append((each.stack, each.load, answered, *latencies, multiple(each.p99_ratio)))
    return heads, rows


def cost_rows(summaries: list[Summary]) -> Rows:
    """CPU time of a request in µs and resident memory in MB, by role of process."""
    heads = ("stack", "load", *ROLES, "total", "MB")
    rows: list[tuple[str, ...]] = []
    for each in summaries:
        # Seconds of 1,000 requests are milliseconds of one.
        cpu_us = {role: cpu_s * 1e3 for role, cpu_s in each.cpu_s_per_1000.items()}
        by_role = (f"{cpu_us[role]:,.0f}" if role in cpu_us else "-" for role in ROLES)
        rows.append(
            (each.stack, each.load, *by_role, f"{sum(cpu_us.values()):,.0f}", f"{sum(each.memory_mb.values()):,.0f}")
        )
    return heads, rows


def goal_rows(goals: list[GoalResult]) -> Rows:
    """Each goal, what it asks for, what was measured."""
    words = {True: "reached", False: "not reached", None: "not measured"}
    rows: list[tuple[str, ...]] = []
    for goal in goals:
        measured = "-" if goal.measured is None else f"{goal.measured:.2f}"
        asked = f"{'at least' if goal.at_least else 'at most'} {goal.bound:g}"
        rows.append((goal.text, words[goal.reached], asked, measured))
    return ("goal", "", "asked", "found"), rows


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
        f"{disturbed.most:.2f} in the worst; above a few hundredths, measure again."
    )


def markdown_report(result: BenchResult) -> str:
    """Everything of a run that a page shows."""
    parts = [
        origin(result),
        "Closed loop:",
        markdown_table(throughput_rows(result.summaries)),
        "Open loop and batches. Latencies are from the intended send time; the ratio is of p99:",
        markdown_table(latency_rows(result.summaries)),
        "CPU time of a request in µs, by process, and resident memory:",
        markdown_table(cost_rows(result.summaries)),
        *notes(result.summaries),
        "Goals:",
        markdown_table(goal_rows(result.goals)),
    ]
    return "\n\n".join(parts)


def origin(result: BenchResult) -> str:
    """Where and from what a run's figures came, in a sentence."""
    machine = result.machine
    return (
        f"Run of {result.started_at[:10]}, commit `{result.commit}`: {result.rounds} rounds of {result.seconds:g} s a "
        f"cell on {machine.cores} cores ({machine.cpu}), {machine.memory_gb:.0f} GB, Python {machine.python}, kernel "
        f"{machine.kernel}. Figures are medians of the rounds."
    )


def readme_report(result: BenchResult) -> str:
    """The few figures of a run that the README shows."""
    heads = ("", "requests/s, 64 connections", "x bare uvicorn", "p50 ms, 1 connection", "p99 ms, 16 connections")
    rows: list[tuple[str, ...]] = []
    for stack in dict.fromkeys(each.stack for each in result.summaries):
        one, sixteen, many = (find(result.summaries, stack, f"closed-{n}") for n in (1, 16, 64))
        if one is None or sixteen is None or many is None:
            continue
        name = f"**{stack}**" if stack == PRODUCT else stack
        figures = (f"{many.rate_per_s.median:,.0f}", multiple(many.rate_ratio))
        rows.append((name, *figures, milliseconds(one.p50_ms.median), milliseconds(sixteen.p99_ms.median)))
    machine = result.machine
    told = (
        f"`make bench`, {result.started_at[:10]}, commit `{result.commit}`, {machine.cores} cores shared by all "
        "programs and the load generator; medians of interleaved rounds; every answer checked against the model file. "
        "Of these stacks only Sekisho writes a log of its predictions."
    )
    return f"{markdown_table((heads, rows))}\n\n{told}"


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
    return "-" if value is None else f"{value:.3f}" if value < 1 else f"{value:.2f}"


def _of(summaries: list[Summary], *, closed: bool) -> list[Summary]:
    return [each for each in summaries if each.load.startswith("closed-") == closed]
