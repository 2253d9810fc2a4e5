"""What a run of the workers' benchmark says: goals, table, result file and page."""

import msgspec

from loadtests.bench_result import BenchResult
from loadtests.cell import Cell
from loadtests.goals import Goal
from loadtests.loads import ONE, SIXTY_FOUR
from loadtests.report import Rows, disturbance, goal_rows, markdown_table, milliseconds, origin, spread_text
from loadtests.summary import Summary
from loadtests.worker_contestants import MLSERVER, WORKER

BEGIN, END = "<!-- bench-worker:begin -->", "<!-- bench-worker:end -->"


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """What one setting of MLServer reached while the best for each load was looked for."""

    settings: str
    load: str
    rate_per_s: float
    p50_ms: float


class WorkerBenchResult(BenchResult, frozen=True, kw_only=True):
    """One run, with the settings that were tried for MLServer and those taken, by load."""

    tried: list[Tried]
    chosen: dict[str, str]
    peer_packages: dict[str, str]


def _throughput_at_64(cells: dict[tuple[str, str], Cell]) -> float:
    other = cells[MLSERVER, SIXTY_FOUR.name].result.rate_per_s
    return cells[WORKER, SIXTY_FOUR.name].result.rate_per_s / max(other, 1e-9)


def _p50_at_one(cells: dict[tuple[str, str], Cell]) -> float:
    return cells[WORKER, ONE.name].result.p50_ms / max(cells[MLSERVER, ONE.name].result.p50_ms, 1e-9)


GOALS = (
    Goal("requests/s at 64 connections, x MLServer", _throughput_at_64, 5, True),
    Goal("p50 at 1 connection, x MLServer", _p50_at_one, 1, False),
)


def worker_rows(summaries: list[Summary]) -> Rows:
    """Requests a second beside MLServer's, how long one took, and what it cost."""
    heads = ("server", "conns", "req/s", "min-max", "x MLServer", "p50 ms", "x MLServer", "p99 ms", "CPU µs", "MB")
    rows: list[tuple[str, ...]] = []
    for each in summaries:
        rate = each.rate_per_s
        rows.append(
            (
                each.stack,
                each.load.removeprefix("closed-"),
                f"{rate.median:,.0f}",
                f"{rate.least:,.0f}-{rate.most:,.0f}",
                spread_text(each.rate_ratio),
                milliseconds(each.p50_ms.median),
                spread_text(each.p50_ratio),
                milliseconds(each.p99_ms.median),
                # Seconds of 1,000 requests are milliseconds of one.
                f"{sum(each.cpu_s_per_1000.values()) * 1e3:,.0f}",
                f"{sum(each.memory_mb.values()):,.0f}",
            )
        )
    return heads, rows


def tried_rows(tried: list[Tried], chosen: dict[str, str]) -> Rows:
    """What each setting of MLServer reached; a star is the one that its load was then measured with."""
    loads = list(dict.fromkeys(each.load for each in tried))
    heads = ("MLServer with", *(f"req/s at {load.removeprefix('closed-')}" for load in loads))
    rate_of = {(each.settings, each.load): each.rate_per_s for each in tried}
    rows: list[tuple[str, ...]] = []
    for settings in dict.fromkeys(each.settings for each in tried):
        stars = {load: " *" if chosen[load] == settings else "" for load in loads}
        rows.append((settings, *(f"{rate_of[settings, load]:,.0f}{stars[load]}" for load in loads)))
    return heads, rows


def markdown_report(result: WorkerBenchResult) -> str:
    """Everything of a run that the page shows."""
    peers = ", ".join(f"{name} {version}" for name, version in result.peer_packages.items())
    parts = [
        origin(result),
        markdown_table(worker_rows(result.summaries)),
        disturbance(result.summaries),
        f"MLServer's side: {peers}. Its processes (`parallel_workers`) and batching as tried, and (*) taken:",
        markdown_table(tried_rows(result.tried, result.chosen)),
        "Goals:",
        markdown_table(goal_rows(result.goals)),
    ]
    return "\n\n".join(parts)
