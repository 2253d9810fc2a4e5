"""What the documentation shows of a run."""

from loadtests.bench_result import BenchResult
from loadtests.ranking_report import ABOUT, ranking_rows
from loadtests.report import (
    Rows,
    cost_rows,
    goal_rows,
    latency_rows,
    markdown_table,
    milliseconds,
    notes,
    origin,
    spread_text,
    throughput_rows,
)
from loadtests.scaling_report import scaling_caveat, scaling_rows
from loadtests.stacks import PRODUCT
from loadtests.summary import find


def markdown_report(result: BenchResult) -> str:
    """Everything of a run that its page shows."""
    parts = [
        origin(result),
        "Closed loop:",
        markdown_table(throughput_rows(result.summaries)),
        "Open loop and batches. Latencies are from the intended send time; the ratio is of p99:",
        markdown_table(latency_rows(result.summaries)),
        "CPU time of a request in µs, by process, and resident memory:",
        markdown_table(cost_rows(result.summaries)),
        *_section(ABOUT, ranking_rows(result.cells)),
        *_section("Gateway processes, closed loop over 64 connections:", scaling_rows(result.cells)),
        *scaling_caveat(result.cells, result.machine.cores),
        *notes(result.summaries),
        "Goals:",
        markdown_table(goal_rows(result.goals)),
    ]
    return "\n\n".join(parts)


def readme_report(result: BenchResult) -> str:
    """The few figures of a run that the README shows."""
    heads = ("", "requests/s, 64 connections", "x bare uvicorn", "p50 ms, 1 connection", "p99 ms, 16 connections")
    rows: list[tuple[str, ...]] = []
    for stack in dict.fromkeys(each.stack for each in result.summaries):
        one, sixteen, many = (find(result.summaries, stack, f"closed-{n}") for n in (1, 16, 64))
        if one is None or sixteen is None or many is None:
            continue
        name = f"**{stack}**" if stack == PRODUCT else stack
        figures = (f"{many.rate_per_s.median:,.0f}", spread_text(many.rate_ratio))
        rows.append((name, *figures, milliseconds(one.p50_ms.median), milliseconds(sixteen.p99_ms.median)))
    machine = result.machine
    told = (
        f"`make bench`, {result.started_at[:10]}, commit `{result.commit}`, {machine.cores} cores shared by all "
        f"programs and the load generator; medians of {result.rounds} interleaved rounds, minimum and maximum in "
        "brackets; every answer checked against the model file. Of these stacks only Sekisho writes a log of its "
        "predictions."
    )
    return f"{markdown_table((heads, rows))}\n\n{told}"


def _section(about: str, rows: Rows) -> list[str]:
    return [about, markdown_table(rows)] if rows[1] else []
