"""`audit`: who changed what, when and why; followed as it happens, or written to a file whole."""

import contextlib
import json
import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rich.text import Text

from experiments_cli.admin_answers import AuditEntry, mapping_of
from experiments_cli.admin_api import AUDIT_PAGE, AdminApi
from experiments_cli.connection import connect
from experiments_cli.document_diff import differences
from experiments_cli.errors import OK, CommandError, Usage
from experiments_cli.experiment_words import change_lines, moved
from experiments_cli.terminal import INDENT, Terminal, moment, plain

FOLLOW_EVERY_S: Final = 1.0
ENTRIES_MAX: Final = 1_000_000
"""Of one export, which holds them in memory to turn them round."""

PAGES_MAX: Final = 2 * ENTRIES_MAX // AUDIT_PAGE

STANDARD_OUTPUT: Final = "-"


def audit(arguments: Namespace, terminal: Terminal) -> int:
    """Print who changed what, when and why, the newest first; or follow the trail; or write all of it to a file."""
    if arguments.export is not None and arguments.follow:
        raise Usage("--export writes what there is, --follow waits for more: give one of them")
    api = connect(arguments)
    if arguments.export is not None:
        return _export(api, arguments, terminal)
    if arguments.follow:
        return _follow(api, arguments, terminal)
    entries = list(trail(api, arguments.name, arguments.limit))
    if arguments.json:
        terminal.write_json({"entries": [entry.told for entry in entries]})
        return OK
    if not entries:
        terminal.say("Nothing was changed yet.")
    for entry in entries:
        _print(entry, terminal)
    return OK


def trail(api: AdminApi, name: str | None, limit: int) -> Iterator[AuditEntry]:
    """Give up to so many changes, the newest first, page by page. Raises CommandError where pages do not end."""
    before: str | None = None
    left = limit
    for _ in range(PAGES_MAX):
        entries, following = api.audit(experiment=name, limit=min(left, AUDIT_PAGE), before=before)
        yield from entries[:left]
        left -= len(entries)
        if following is None or left <= 0:
            return
        if following == before:
            break
        before = following  # a page may be empty: of one experiment, those of many others are gone through
    raise CommandError("the audit trail does not end where the gateway says that it goes on")


def _export(api: AdminApi, arguments: Namespace, terminal: Terminal) -> int:
    lines: list[bytes] = []
    seen: set[str] = set()
    for entry in trail(api, arguments.name, ENTRIES_MAX + 1):
        if entry.id in seen:  # an entry made meanwhile moves none between pages, but a gateway may repeat one
            continue
        seen.add(entry.id)
        lines.append(json.dumps(entry.told, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    if len(lines) > ENTRIES_MAX:
        raise CommandError(f"more than {ENTRIES_MAX:,} changes: export those of one experiment at a time")
    lines.reverse()
    if arguments.export == STANDARD_OUTPUT:
        for line in lines:
            terminal.write(line.decode())
        return OK
    path = Path(arguments.export)
    _write_whole(path, lines)
    if arguments.json:
        terminal.write_json({"file": str(path), "entries": len(lines)})
    else:
        terminal.say(f"{path}: {len(lines):,} changes, the oldest first")
    return OK


def _follow(api: AdminApi, arguments: Namespace, terminal: Terminal) -> int:
    """Print the last changes, then each that is made, until somebody stops it."""
    last: str | None = None
    limit = arguments.limit
    while True:
        fresh: list[AuditEntry] = []
        for entry in trail(api, arguments.name, limit):
            if entry.id == last:
                break
            fresh.append(entry)
        for entry in reversed(fresh):
            if arguments.json:
                terminal.write(json.dumps(entry.told, ensure_ascii=False))
            else:
                _print(entry, terminal)
        terminal.out.file.flush()
        if fresh:
            last = fresh[0].id
            limit = ENTRIES_MAX
        terminal.sleep(FOLLOW_EVERY_S)


def _print(entry: AuditEntry, terminal: Terminal) -> None:
    what = " ".join(part for part in (entry.action, entry.experiment, entry.model) if part is not None)
    numbers = "" if entry.revision is None else f", revision {entry.revision}"
    numbers += "" if entry.epoch is None else f", epoch {entry.epoch}"
    head = Text()
    head.append(moment(entry.at), style="dim")
    head.append(plain(f"  {what}"), style="bold red" if entry.action == "kill" else "bold")
    head.append(plain(f"  by {entry.actor}{numbers}"))
    terminal.out.print(head)
    terminal.say(entry.reason, "italic", indent=INDENT)
    if isinstance(entry.before, dict) and isinstance(entry.after, dict):
        for line in change_lines(differences(mapping_of(entry.before), mapping_of(entry.after))):
            terminal.say(line, indent=INDENT)
    if entry.units_moved_bp:
        terminal.say(moved(entry.units_moved_bp), indent=INDENT)


def _write_whole(path: Path, lines: list[bytes]) -> None:
    """Write beside the file, then put it in its place: whoever reads it meanwhile gets the old one. Raises OSError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.writelines(lines)
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
