"""A run's results for a terminal, for a page and for a program."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final, TextIO

from tests.conformance.check import Check, Level, Result, Verdict
from tests.conformance.sources import URL_BY_PAGE
from tests.conformance.target import Target

_MARKS: Final = {
    Verdict.PASSES: "ok",
    Verdict.DEVIATES: "DEVIATES",
    Verdict.NOT_OFFERED: "-",
    Verdict.OBSERVED: "seen",
}
_ID_WIDTH: Final = 34


def progress_line(result: Result) -> str:
    """One check in one line; what came is told unless it is as claimed."""
    told = "" if result.verdict is Verdict.PASSES else f"  {result.found}"
    if result.verdict is Verdict.DEVIATES:
        told = f"  ({result.check.level}) expected {result.expected}; found {result.found}"
    return f"{_MARKS[result.verdict]:>8}  {result.check.id:<{_ID_WIDTH}}{told}".rstrip()


def summary(results: Sequence[Result]) -> list[list[str]]:
    """Rows of counts by level, a head first."""
    counts = Counter((result.check.level, result.verdict) for result in results)
    judged = (Verdict.PASSES, Verdict.DEVIATES, Verdict.NOT_OFFERED)
    rows = [["level", *judged]]
    rows += [[level, *(str(counts[level, v]) for v in judged)] for level in Level if level is not Level.OBSERVED]
    return rows


def write_summary(results: Sequence[Result], stream: TextIO) -> None:
    """Write the counts in columns."""
    stream.writelines("  ".join(f"{cell:<12}" for cell in row).rstrip() + "\n" for row in summary(results))


def markdown(results: Sequence[Result]) -> str:
    """Tables of the counts, of what deviates, and of what is left open, for a page."""
    lines = _table(summary(results))
    deviating: dict[tuple[str, str, str], list[str]] = {}
    for result in results:
        if result.verdict is Verdict.DEVIATES:
            # One cause may show in many checks; together they take one row.
            cause = (result.check.level, _cell(result.expected), _cell(result.found))
            deviating.setdefault(cause, []).append(f"`{result.check.id}`")
    if deviating:
        rows = [[", ".join(ids), *cause] for cause, ids in deviating.items()]
        lines += ["", *_table([["deviates", "level", "expected", "found"], *rows])]
    observed = [result for result in results if result.verdict is Verdict.OBSERVED]
    rows = [[f"`{r.check.id}`", _cell(r.check.claim), _cell(r.found)] for r in observed]
    lines += ["", *_table([["left open", "question", "found"], *rows])]
    return "\n".join(lines) + "\n"


def markdown_of_checks(checks: Iterable[Check]) -> str:
    """A table of every check, with links to its source."""
    rows = [[f"`{c.id}`", c.level, _cell(c.claim), _linked(c.source)] for c in checks]
    pages = [f"[{page}]: {url}" for page, url in URL_BY_PAGE.items()]
    return "\n".join([*_table([["check", "level", "what must hold", "source"], *rows]), "", *pages]) + "\n"


def as_json(target: Target, results: Sequence[Result]) -> bytes:
    """A document with everything that was sent and came."""
    document: dict[str, Any] = {
        "server": target.server,
        "model": target.model,
        "extensions": sorted(target.extensions),
        "checks": [
            {
                "id": result.check.id,
                "level": result.check.level,
                "claim": result.check.claim,
                "source": result.check.source,
                "verdict": result.verdict,
                "expected": result.expected,
                "found": result.found,
                "sent": result.sent,
                "came": result.came,
            }
            for result in results
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return [head, "|" + " --- |" * len(rows[0]), *body]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _linked(source: str) -> str:
    page, comma, section = source.partition(", ")
    return f"[{page}]{comma}{section}"
