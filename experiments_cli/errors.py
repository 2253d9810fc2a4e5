"""What can go wrong. Each message says what was wrong, where, and what to do about it."""

from collections.abc import Sequence
from typing import Any, Final

from experiments_cli.terminal import plain
from settings.yaml_file import ConfigurationError

OK: Final = 0
FAILED: Final = 1
BAD_USAGE: Final = 2
CHANGES: Final = 3
"""There are changes, and they were not made: by `plan`, or because somebody said no."""

INTERRUPTED: Final = 130

_ADVICE: Final = {
    "unauthenticated": "give a key of this gateway with --key, or in SEKISHO_KEY",
    "forbidden": "give a key with the scope `experiment` or `admin`",
    "unknown_path": "is --url the admin port (8081 if not set), of a gateway as new as this program?",
    "experiments_from_files": "change those files, or start it without --experiments",
    "rate_limited": "the key may not ask so often: wait, and try again",
    "experiments_unavailable": "the gateway cannot reach Redis; what is in force stays in force: try again",
    "internal_error": "the gateway's log says why, under this request id",
}


class CommandError(Exception):
    """A command cannot go on. The base of the errors here, so that one handler at the edge can tell them."""

    exit_code = FAILED

    def facts(self) -> dict[str, Any]:
        """Return what is known, for `--json`."""
        return {"message": str(self)}


class Usage(CommandError):
    """What was asked for cannot be meant."""

    exit_code = BAD_USAGE


class GatewayUnreachable(CommandError):
    """No connection to the gateway, or none that can be trusted."""

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(f"{url} cannot be reached: {problem}; give the address of the gateway's admin port with --url")
        self.url = url


class AnswerLost(CommandError):
    """The gateway was asked, and no whole answer came. Of a write nobody knows whether it was made."""

    def __init__(self, url: str, problem: str, *, is_write: bool) -> None:
        unknown = "; whether the change was made is not known: `sekisho-experiments audit` tells" if is_write else ""
        super().__init__(f"{url}: {problem}{unknown}")
        self.url = url


class UnexpectedAnswer(CommandError):
    """An answer that is none of this API's."""

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(f"{url} answered {problem}: is --url the admin port of a gateway as new as this program?")
        self.url = url


class Refused(CommandError):
    """The gateway said no, in a problem document (RFC 9457)."""

    def __init__(self, status: int, code: str, detail: str, *, field: str | None = None, more: str = "") -> None:
        advice = _ADVICE.get(code)
        where = f"{plain(field)}: " if field and not detail.startswith(f"{field}:") else ""
        said = f"{where}{plain(detail)}" + (f" ({more})" if more else "")
        super().__init__(f"{said}; {advice}" if advice else said)
        self.status, self.code, self.detail, self.field = status, code, detail, field

    def facts(self) -> dict[str, Any]:
        """Return what the gateway said."""
        return {"message": str(self), "status": self.status, "code": self.code, "field": self.field}


class ChangedMeanwhile(CommandError):
    """What was read is not what is there now; nothing was overwritten."""

    def __init__(self, name: str, read: int | None, now: int | None, by: str | None) -> None:
        was = "was not there" if read is None else f"was revision {read}"
        is_now = "is gone" if now is None else f"is now revision {now}"
        super().__init__(f"{name!r} {was} and {is_now}{by or ''}; nothing was overwritten: look at it, and plan again")
        self.name, self.read, self.now = name, read, now

    def facts(self) -> dict[str, Any]:
        """Return the revisions."""
        return {"message": str(self), "experiment": self.name, "revision_read": self.read, "revision": self.now}


class WrongFiles(CommandError):
    """Documents in files are wrong. Carries each fault with file and line."""

    exit_code = BAD_USAGE

    def __init__(self, faults: Sequence[ConfigurationError]) -> None:
        super().__init__("\n".join(plain(str(fault)) for fault in faults))
        self.faults = tuple(faults)

    def facts(self) -> dict[str, Any]:
        """Return every fault."""
        faults = [{"file": str(f.path), "line": f.line, "problem": f.problem} for f in self.faults]
        return {"message": str(self), "faults": faults}


class MissingExtra(CommandError):
    """A command needs packages that are not installed."""

    def __init__(self, command: str, module: str | None) -> None:
        super().__init__(
            f"`{command}` reads the prediction log, which needs {module or 'more'} beside this program: "
            "pip install 'sekisho[analysis]'"
        )


class NotAcknowledged(CommandError):
    """A change is stored, and not all gateways have said that they have it."""

    def __init__(self, revision: int, late: Sequence[str], wait_s: float) -> None:
        who = ", ".join(late) if late else "no gateway has said anything"
        super().__init__(
            f"revision {revision} is stored, but was not acknowledged everywhere within {wait_s:g} s: {who}; "
            "a gateway takes it when it next reads the store, or at its start"
        )
        self.revision = revision
