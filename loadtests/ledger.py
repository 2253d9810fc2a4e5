"""`python -m loadtests.ledger`: what each stage of a request costs each process, in tables that add up."""

import shlex
import signal
import sys
from datetime import UTC, datetime

import psutil
from rich.console import Console

from loadtests.bench import INTERRUPTED, PAGE, PROJECT, TABLE_WIDTH, forget_settings
from loadtests.generator_process import GeneratorFailed
from loadtests.ledger_report import BEGIN, END, LedgerRun, markdown_report, notes, tables
from loadtests.ledger_run import HotCostMissing, WrongAnswers, measure_ledger
from loadtests.machine import commit_of, describe_machine
from loadtests.redis_server import RedisServerNotFound
from loadtests.report import rich_table, with_report
from loadtests.sampling_profiler import ProfilerFailed, ProfilerNotFound, find_profiler
from loadtests.stack_process import ProcessFailed
from loadtests.stage_ledger import ProfileLineWrong
from settings import CommandLine
from settings.command_line import whole_number

SECONDS, SECONDS_MAX = 4, 120
NO_PROFILER = 2

_EPILOG = """\
examples:
  python -m loadtests.ledger                       a minute, to see that everything works
  python -m loadtests.ledger --seconds 20 --save   the run whose figures are published

It needs py-spy (`pip install py-spy`), and the right to look into its own processes: where py-spy says that it may
not, run it as root, or set the kernel's `kernel.yama.ptrace_scope` to 0.

Exit code 1 means that an answer was wrong or a process failed, 2 that there is no py-spy.
"""

_FAILURES = (
    *(ProcessFailed, GeneratorFailed, RedisServerNotFound, ProfilerFailed, ProfileLineWrong, WrongAnswers),
    *(HotCostMissing, psutil.Error, OSError),
)


def command_line() -> CommandLine:
    """Describe the options."""
    description = (
        "Load the gateway over 1 and then over 64 connections, and say what each stage of a request costs each of its "
        "processes: the CPU time that the operating system counted, divided by where a sampling profiler saw the "
        "threads in a second run of the same load."
    )
    line = CommandLine("python -m loadtests.ledger", description=description, epilog=_EPILOG)
    about = "each load is counted so long, and sampled so long; the longer, the finer"
    line.option("--seconds", type=whole_number(1, SECONDS_MAX), default=SECONDS, help=about)
    line.option("--save", action="store_true", help="write the tables into docs/performance.md")
    return line


def main(arguments: list[str] | None = None) -> int:
    """Run. Returns 0; 1 where an answer was wrong or a process failed; 2 without a profiler; 130 when interrupted."""
    given = command_line().parse_args(arguments)
    forget_settings()
    # Where nobody looks at a terminal, a table may be as wide as it is.
    console, started_at = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH), datetime.now(UTC)
    try:
        profiler = find_profiler()
        loads = measure_ledger(profiler, given.seconds, lambda what: console.print(what, highlight=False))
    except ProfilerNotFound as error:
        print(f"ledger: error: {error}", file=sys.stderr)
        return NO_PROFILER
    except _FAILURES as error:
        print(f"ledger: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ledger: interrupted; every process has been ended", file=sys.stderr)
        return INTERRUPTED
    run = LedgerRun(
        command=shlex.join(["python", "-m", "loadtests.ledger", *(sys.argv[1:] if arguments is None else arguments)]),
        commit=commit_of(PROJECT),
        started_at=started_at.isoformat(timespec="seconds"),
        machine=describe_machine(),
        seconds=given.seconds,
        loads=loads,
    )
    _show(run, console)
    if given.save:
        PAGE.write_text(with_report(PAGE.read_text(), markdown_report(run), BEGIN, END))
        console.print(f"written: {PAGE}", soft_wrap=True)
    return 0


def _show(run: LedgerRun, console: Console) -> None:
    for title, rows in tables(run).items():
        console.print()
        console.print(rich_table(title, rows))
    console.print()
    for note in notes(run):
        console.print(note, highlight=False)


if __name__ == "__main__":
    # Being told to stop ends a run as Ctrl-C does: every process is ended, and the files are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
