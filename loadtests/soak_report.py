"""What a soak says: tables, chart and page."""

from loadtests.line_chart import Line, Panel, line_chart
from loadtests.report import Rows, goal_rows, markdown_table, milliseconds
from loadtests.soak_result import LogCount, SoakResult, memory_mb, memory_slope_mb_per_minute, served_by

BEGIN, END = "<!-- soak:begin -->", "<!-- soak:end -->"


def minute_rows(result: SoakResult) -> Rows:
    """Answers and latencies by minute."""
    heads = ("minute", "req/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms")
    rows: list[tuple[str, ...]] = []
    for each in result.by_minute:
        latencies = (each.p50_ms, each.p99_ms, each.p999_ms, each.max_ms)
        rows.append((str(each.minute), f"{each.rate_per_s:,.0f}", *map(milliseconds, latencies)))
    return heads, rows


def process_rows(result: SoakResult) -> Rows:
    """Memory, threads and open files of each program: at the first sample and at the last."""
    heads = ("process", "first MB", "last MB", "most MB", "MB/min, 2nd half", "threads", "open files")
    samples = result.samples
    rows: list[tuple[str, ...]] = []
    for name in samples[0].processes if samples else ():
        first, last = samples[0].processes[name], samples[-1].processes[name]
        slope = memory_slope_mb_per_minute(samples, [name])
        most_mb = max(each.processes[name].memory_mb for each in samples)
        rows.append(
            (
                name,
                *(f"{figure:,.1f}" for figure in (first.memory_mb, last.memory_mb, most_mb)),
                "-" if slope is None else f"{slope:+.2f}",
                f"{first.threads} to {last.threads}",
                f"{first.fds} to {last.fds}",
            )
        )
    return heads, rows


def sentences(result: SoakResult) -> list[str]:
    """What was offered, what came back, and where each answer is in the log."""
    return [_of_the_load(result), _of_the_log(result.log)]


def _of_the_load(result: SoakResult) -> str:
    found, gateway = result.result, result.log.gateway
    return (
        f"{result.offered_per_s:,.0f} requests/s were offered for {result.minutes:g} minutes, {result.share:.0%} of "
        f"the {result.capacity_per_s:,.0f} that were reached in closed loop over 64 connections right before. "
        f"{found.answers_total:,} answers, each checked: {sum(found.errors.values()):,} wrong or refused, "
        f"{found.unanswered:,} requests without an answer. p50 {milliseconds(found.p50_ms)} ms, p99 "
        f"{milliseconds(found.p99_ms)} ms, p99.9 {milliseconds(found.p999_ms)} ms, from the intended send time. The "
        f"gateway shed {gateway.shed:,} and counted {gateway.errors:,} errors."
    )


def _of_the_log(log: LogCount) -> str:
    gateway = log.gateway
    return (
        f"The prediction log: {log.answers:,} answers with those before the soak, {gateway.rows_offered:,} rows "
        f"offered, {gateway.rows_written:,} written, {gateway.rows_dropped:,} dropped, {gateway.rows_pending:,} "
        f"pending; {log.rows_in_files:,} rows in its files once the gateway had stopped, of "
        f"{log.bytes_in_files / max(1, log.rows_in_files):,.0f} bytes each."
    )


def markdown_report(result: SoakResult) -> str:
    """Everything of a soak that its page shows."""
    machine = result.machine
    origin = (
        f"Run of {result.started_at[:10]}, commit `{result.commit}`, on {machine.cores} cores ({machine.cpu}) that "
        "gateway, workers, Redis and the load generator share."
    )
    parts = [
        origin,
        *sentences(result),
        "![Memory and latency over time](images/soak.svg)",
        *([f"**Failed:** {'; '.join(result.problems)}."] if result.problems else []),
        markdown_table(process_rows(result)),
        markdown_table(minute_rows(result)),
        markdown_table(goal_rows(result.goals())),
    ]
    return "\n\n".join(parts)


def soak_chart(result: SoakResult) -> str:
    """Memory of the programs under test and latency over time. Raises ValueError of fewer than two samples."""
    samples = result.samples
    memory = [
        Line(name.removeprefix("sekisho-"), [memory_mb(each, [name]) for each in samples], name.endswith("gateway"))
        for name in served_by(samples)
    ]
    latency = [
        Line("p99", [each.p99_ms for each in samples], highlighted=True),
        Line("p50", [each.p50_ms for each in samples], highlighted=False),
    ]
    note = f"{result.offered_per_s:,.0f} requests a second, every answer checked; {result.commit}"
    return line_chart(
        f"{result.minutes:g} minutes at {result.share:.0%} of capacity",
        note,
        [each.at_s / 60 for each in samples],
        "minutes",
        [Panel("Resident memory, MB", memory), Panel("Latency, ms", latency)],
    )
