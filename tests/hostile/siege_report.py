"""The table that a siege ends with."""

from collections import Counter

from rich.console import Console
from rich.table import Table

from tests.hostile.crowd import AFTER_CLOSE, Offender
from tests.hostile.siege import SiegeResult


def print_siege(console: Console, result: SiegeResult, told: list[str], *, lives: bool) -> None:
    """Print outcomes by kind, what was held, and every offender that was kept. told: errors in the gateway's log."""
    tally, good = result.tally, result.good
    console.print(_outcomes(result))
    console.print(siege_in_words(result), markup=False)
    console.print(f"the gateway {'lives' if lives else 'DIED'}; errors in its log: {len(told)}")
    for line in told[:5]:
        console.print(f"  {line[:500]}", markup=False)
    for problem in good.problems[:5]:
        console.print(f"  good caller: {problem}", markup=False)
    for problem, count in tally.offences.most_common():
        console.print(f"OFFENCE {count:,} times: {problem}", markup=False)
    for offender in tally.offenders:
        _print_offender(console, offender)


def siege_in_words(result: SiegeResult) -> str:
    """Sum up in a paragraph."""
    tally, good, before, after = result.tally, result.good, result.held_before, result.held_after
    by_outcome: Counter[str] = Counter()
    for (_, _, outcome), count in tally.outcomes.items():
        by_outcome[outcome] += count
    unread = by_outcome.pop(AFTER_CLOSE, 0)
    outcomes = ", ".join(f"{outcome}: {count:,}" for outcome, count in sorted(by_outcome.items()))
    rate = tally.requests / result.seconds
    return (
        f"{tally.requests:,} requests on {tally.connections:,} connections in {result.seconds:.0f} s, "
        f"{rate:,.0f} a second ({outcomes}; {unread:,} more stood behind one that closed its connection). "
        f"Treated as none may be: {tally.offences.total():,}. "
        f"Good callers: {good.answers:,} answers, {good.wrong:,} wrong; "
        f"p50 {good.quantile_ms(0.5):.1f} ms, p99 {good.quantile_ms(0.99):.1f} ms. "
        f"Before and after: {before.descriptors} and {after.descriptors} descriptors, "
        f"{before.tasks} and {after.tasks} tasks, {before.memory_mb:.0f} and {after.memory_mb:.0f} MB."
    )


def _outcomes(result: SiegeResult) -> Table:
    by_kind: dict[tuple[str, str], Counter[str]] = {}
    for (port, kind, outcome), count in result.tally.outcomes.items():
        by_kind.setdefault((port, kind), Counter())[outcome] += count
    statuses = sorted({outcome for counts in by_kind.values() for outcome in counts})
    statuses.sort(key=lambda outcome: (outcome == AFTER_CLOSE, outcome))
    table = Table("port", "requests", *statuses, title="What became of them")
    for (port, kind), counts in sorted(by_kind.items()):
        table.add_row(port, kind, *(f"{counts[outcome]:,}" if counts[outcome] else "" for outcome in statuses))
    return table


def _print_offender(console: Console, offender: Offender) -> None:
    console.print(f"{offender.port}, {offender.kind}: {offender.problem}", markup=False)
    console.print(f"  sent {offender.request!r}", markup=False)
    console.print(f"  heard {offender.answer!r}", markup=False)
