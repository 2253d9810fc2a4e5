"""What a ledger shows: a table for each process, and what a reader must know besides."""

import msgspec

from loadtests.cell import FOREIGN_CORES_MAX
from loadtests.ledger_run import GATEWAY, MAIN_THREAD, MeasuredLoad
from loadtests.machine import Machine
from loadtests.report import Rows, markdown_table
from loadtests.stage_ledger import (
    ADMIT,
    ANSWERED,
    ASSEMBLE,
    ASSIGN,
    BATCH,
    DECODE,
    DISPATCH,
    FEATURES,
    KERNEL,
    LOG,
    LOG_THREAD,
    LOOP,
    METRICS,
    OTHER,
    READ,
    RUN,
    STEPS_PER_US,
    WRITE,
)

BEGIN, END = "<!-- ledger:begin -->", "<!-- ledger:end -->"
NOTHING = "-"
TOTAL = "total"

_DATA_PATH = (READ, DECODE, ADMIT, ASSIGN, FEATURES, ASSEMBLE, DISPATCH, ANSWERED, BATCH, RUN)
_ORDER = (*_DATA_PATH, METRICS, LOG, WRITE, LOOP, OTHER, LOG_THREAD)


class LedgerRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run. seconds: for which each load was counted, and sampled."""

    command: str
    commit: str
    started_at: str
    machine: Machine
    seconds: int
    loads: list[MeasuredLoad]


def summary_rows(run: LedgerRun) -> Rows:
    """What a request costs each process, in µs of CPU time."""
    heads = ("process", *(_load_head(load) for load in run.loads))
    names = list(run.loads[0].entries)
    rows = [(name, *(_shown(_total(load, name)) for load in run.loads)) for name in names]
    sums = (_shown(sum(_total(load, name) for name in names)) for load in run.loads)
    return heads, [*rows, (TOTAL, *sums)]


def process_rows(run: LedgerRun, name: str) -> Rows:
    """What each stage costs a process, in µs of CPU time of a request; of the gateway also what it costs alone."""
    heads: list[str] = [name]
    columns: list[dict[tuple[str, str], int]] = []
    for load in run.loads:
        heads.append(_load_head(load))
        columns.append({(each.thread, each.stage): each.steps for each in load.entries[name]})
        if name == GATEWAY:
            heads.append("hot")
            columns.append({(MAIN_THREAD, stage): steps for stage, steps in load.hot.items()})
    lines = sorted({key for column in columns for key in column}, key=_place)
    rows = [(_label(*key), *(_shown(column.get(key, 0)) for column in columns)) for key in lines]
    return tuple(heads), [*rows, (TOTAL, *(_shown(sum(column.values())) for column in columns))]


def tables(run: LedgerRun) -> dict[str, Rows]:
    """Every table by its title."""
    shown = {"CPU time of a request in µs, by process": summary_rows(run)}
    for name in run.loads[0].entries:
        rows = process_rows(run, name)
        if len(rows[1]) > 1:
            shown[f"{name.capitalize()}, by stage"] = rows
    return shown


def notes(run: LedgerRun) -> list[str]:
    """What a reader of the tables must know besides."""
    rates = ", ".join(f"{load.cell.result.rate_per_s:,.0f} at {_load_head(load)}" for load in run.loads)
    sampled = ", ".join(
        f"{name} " + " and ".join(f"{load.samples.get(name, 0):,}" for load in run.loads)
        for name in run.loads[0].samples
    )
    worst = max(load.cell.foreign_cores for load in run.loads)
    busy = f" That is more than {FOREIGN_CORES_MAX:g}: measure again." if worst > FOREIGN_CORES_MAX else ""
    return [
        f"Requests a second while CPU time was counted: {rates}. Samples: {sampled}.",
        f"Other programs on the machine used up to {worst:.2f} of its cores meanwhile.{busy}",
    ]


def markdown_report(run: LedgerRun) -> str:
    """Everything of a run that the page shows."""
    machine = run.machine
    origin = (
        f"Run of {run.started_at[:10]}, commit `{run.commit}`, `{run.command}`, on {machine.cores} cores "
        f"({machine.cpu}), {machine.memory_gb:.0f} GB, Python {machine.python}, kernel {machine.kernel}."
    )
    shown = [f"{title}:\n\n{markdown_table(rows)}" for title, rows in tables(run).items()]
    return "\n\n".join([origin, *shown, *notes(run)])


def _total(load: MeasuredLoad, name: str) -> int:
    return sum(each.steps for each in load.entries[name])


def _load_head(load: MeasuredLoad) -> str:
    connections = load.cell.load.removeprefix("closed-")
    return f"{connections} connection{'s' if connections != '1' else ''}"


def _shown(steps: int) -> str:
    return f"{steps / STEPS_PER_US:,.1f}" if steps else NOTHING


def _label(thread: str, stage: str) -> str:
    return stage if thread == MAIN_THREAD else f"{thread}: {stage}"


def _place(key: tuple[str, str]) -> tuple[bool, str, int, str]:
    # The main thread first; of each thread the kernel's last.
    thread, stage = key
    place = len(_ORDER) + (stage == KERNEL) if stage not in _ORDER else _ORDER.index(stage)
    return thread != MAIN_THREAD, thread, place, stage
