"""What each fault did to the answers, as a table: `python -m tests.fault.report FILE`, after `make fault`.

FILE is what `--fault-report` wrote. With `--save` the table also goes between the markers of docs/reliability.md.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.fault.fault_record import FaultRecord, Span, read_records
from tests.fault.marked_page import DOCS, write_between

PAGE = DOCS / "reliability.md"

HEADINGS = (
    "",
    "fault",
    "right answers in time, a second: before / during / after",
    "p99 ms: before / during / after",
    "fallbacks",
    "refused or unanswered",
    "noticed s",
    "recovered s",
    "whole again s",
    "also",
)


def latest(records: Sequence[FaultRecord]) -> list[FaultRecord]:
    """Sort records by fault; of a fault that was run twice, the later."""
    by_fault = {(record.number, record.fault): record for record in records}
    return sorted(by_fault.values(), key=lambda record: record.number)


def table(records: Sequence[FaultRecord]) -> str:
    """Write records as a Markdown table."""
    rows = [_row(record) for record in records]
    lines = [HEADINGS, ("---",) * len(HEADINGS), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def measured(records: Sequence[FaultRecord]) -> str:
    """Say how the table came about."""
    modes = " and ".join(sorted({record.mode for record in records}))
    requests = sum(record.before.asked + record.during.asked + record.after.asked for record in records)
    return f"{modes} mode, {requests:,} requests, each answer checked; {os.cpu_count()} cores shared with the load."


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and save it where asked to. Returns 2 where there is no record."""
    parser = argparse.ArgumentParser(prog="python -m tests.fault.report", description=__doc__)
    parser.add_argument("file", type=Path, help="JSON lines that `pytest tests/fault --fault-report FILE` wrote")
    parser.add_argument("--save", action="store_true", help=f"write the table into {PAGE.name} too")
    given = parser.parse_args(arguments)
    try:
        records = latest(read_records(given.file))
    except (OSError, ValueError) as error:
        print(f"tests.fault.report: {given.file}: {error}", file=sys.stderr)
        return 2
    if not records:
        print(f"tests.fault.report: {given.file} is empty", file=sys.stderr)
        return 2
    print(table(records))
    print(f"\n{measured(records)}")
    if given.save:
        write_between(PAGE, "faults", f"Measured in {measured(records)}\n\n{table(records)}")
    return 0


def _row(record: FaultRecord) -> tuple[str, ...]:
    spans = (record.before, record.during, record.after)
    return (
        str(record.number),
        record.fault,
        " / ".join(_goodput(span) for span in spans),
        " / ".join("-" if span.p99_ms is None else f"{span.p99_ms:,.0f}" for span in spans),
        _counts(record.fallbacks),
        _counts(record.failures),
        "-" if record.noticed_s is None else f"{record.noticed_s:.1f}",
        "not" if record.recovered_s is None else f"{record.recovered_s:.1f}",
        f"{record.whole_s:.1f}",
        ", ".join(f"{name} {value}" for name, value in record.figures.items()) or "-",
    )


def _goodput(span: Span) -> str:
    # Arrivals are random, so the rate alone would hide what share of them it is.
    share = "" if span.good == 1.0 else f" ({span.good:.1%})"
    return f"{span.goodput_per_s:,.0f}{share}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "none"


if __name__ == "__main__":
    sys.exit(main())
