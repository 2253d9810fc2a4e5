"""Waiting until every gateway has a revision of the experiments in force."""

from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from rich.text import Text

from experiments_cli.admin_answers import Acknowledgement
from experiments_cli.admin_api import AdminApi
from experiments_cli.errors import CommandError, NotAcknowledged, Refused
from experiments_cli.terminal import Terminal, plain

LOOK_EVERY_S: Final = 0.1
WAIT_S: Final = 10.0
WAIT_S_MAX: Final = 600.0


def acknowledged(api: AdminApi, revision: int, arguments: Namespace, terminal: Terminal) -> bool | None:
    """Wait as a command's options say; None where nobody waits, or nobody knows. False: not in time, which is told."""
    if arguments.no_wait or getattr(arguments, "dry_run", False):
        return None
    try:
        return wait_for_gateways(api, revision, arguments.wait_s, terminal)
    except NotAcknowledged as error:
        terminal.note(str(error), "bold red")
        return False


def wait_for_gateways(api: AdminApi, revision: int, wait_s: float, terminal: Terminal) -> bool | None:
    """Wait until every gateway that the status lists has acknowledged a revision, or a later one.

    Returns True; None where this gateway does not say, and then notes why. Raises NotAcknowledged after wait_s.
    """
    deadline = terminal.monotonic() + wait_s
    with _progress(terminal, f"revision {revision}: waiting for gateways") as show:
        while True:
            try:
                known = _acknowledged(api)
            except Refused as error:
                terminal.note(f"it is not known which gateways have revision {revision}: {error}")
                return None
            except CommandError as error:
                known, problem = {}, str(error)
            else:
                problem = ""
            late = _late(known, revision)
            if known and not late:
                break
            if terminal.monotonic() >= deadline:
                raise NotAcknowledged(revision, [*late, *([problem] if problem else [])], wait_s)
            show(f"revision {revision}: {len(known) - len(late)} of {len(known)} gateways have it")
            terminal.sleep(LOOK_EVERY_S)
    return True


@contextmanager
def _progress(terminal: Terminal, begin: str) -> Iterator[Callable[[str], None]]:
    if not terminal.err.is_terminal:
        yield lambda _text: None
        return
    with terminal.err.status(Text(begin)) as status:
        yield lambda text: status.update(Text(text))


def _acknowledged(api: AdminApi) -> Mapping[str, Acknowledgement]:
    """Return what each instance said last, as the process that heard the most of it knows."""
    found: dict[str, Acknowledgement] = {}
    for status in api.status():
        for instance, said in status.acknowledged.items():
            if instance not in found or found[instance].revision < said.revision:
                found[instance] = said
    return found


def _late(known: Mapping[str, Acknowledgement], revision: int) -> list[str]:
    return [
        plain(f"{name} has revision {said.revision}" + (f", said {said.age_s:.1f} s ago" if said.age_s else ""))
        for name, said in sorted(known.items())
        if said.revision < revision
    ]
