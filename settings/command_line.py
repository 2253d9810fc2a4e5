"""Flags first, then `SEKISHO_*` variables, then the default: one rule for every program here."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NoReturn

VARIABLE_PREFIX: Final = "SEKISHO_"
SWITCHED_ON: Final = frozenset({"1", "true", "yes", "on"})
SWITCHED_OFF: Final = frozenset({"0", "false", "no", "off"})


class CommandLine(argparse.ArgumentParser):
    """An argument parser whose options can also be given as environment variables.

    `--admin-port` may be given as `SEKISHO_ADMIN_PORT`; the flag wins. Help shows variable and default. Bad usage
    prints the usage and one line that says what was wrong, both on standard error, and exits with code 2.
    """

    def __init__(self, *args: Any, environment: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)  # an abbreviation breaks on the day that a second option shares it
        super().__init__(*args, **kwargs)
        self._environment = os.environ if environment is None else environment
        self._required_options: list[tuple[str, str]] = []

    def add_subparsers(self, **kwargs: Any) -> Any:
        """Add commands, whose parsers read the same environment."""
        kwargs.setdefault("parser_class", partial(type(self), environment=self._environment))
        return super().add_subparsers(**kwargs)

    def option(self, flag: str, *, help: str, default: Any = None, required: bool = False, **kwargs: Any) -> None:  # noqa: A002 - argparse's own word
        """Add an option that `SEKISHO_<FLAG>` can set too.

        A switch (`action="store_true"`) is set by the values 1, true, yes and on, and not by 0, false, no and off.
        Several values (`nargs`) are separated by spaces. A variable that is empty counts as not given. `required` is
        satisfied by either.
        """
        destination = _destination(flag)
        variable = VARIABLE_PREFIX + destination.upper()
        switch = kwargs.get("action") == "store_true"
        if switch:
            default = bool(default)
        if required:
            self._required_options.append((flag, variable))
        shown = "; required" if required else "" if switch or default is None else f"; default {_text(default)}"
        described = f"{help} [{variable}{shown.replace('%', '%%')}]"
        given = _VariableText(self._environment.get(variable, "").strip())
        added = self.add_argument(flag, dest=destination, default=given or default, help=described, **kwargs)
        if given:
            # argparse reads a default that is text as if it had been a flag's value, once it knows that the flag was
            # not given and the command is the one that runs: so a wrong variable hurts nobody who does not use it.
            added.type = _VariableReader(variable, added, switch=switch)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, then refuse what is required and was given neither as a flag nor as a variable."""
        parsed, rest = super().parse_known_args(args, namespace)
        for flag, variable in self._required_options:
            if getattr(parsed, _destination(flag)) is None:
                self.error(f"{flag} is required (or set {variable})")
        return parsed, rest

    def error(self, message: str) -> NoReturn:
        """Print usage and the fault to standard error, and exit with code 2."""
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: error: {message}\n")


class _VariableText(str):
    """A variable's text, told by its type from a flag's."""

    __slots__ = ()


class _VariableReader:
    """Stands in for an option's `type` where its variable is set, and reads the variable's text as well."""

    def __init__(self, variable: str, action: argparse.Action, *, switch: bool) -> None:
        self._variable, self._switch = variable, switch
        self._choices, self._count = action.choices, action.nargs
        self._read: Callable[[str], Any] = action.type if callable(action.type) else str
        self.__name__ = getattr(self._read, "__name__", "value")  # argparse's messages name the type by it

    def __call__(self, text: str) -> Any:
        if not isinstance(text, _VariableText):
            return self._read(text)
        try:
            return self._from_variable(text)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{self._variable}={text}: {error}") from error

    def _from_variable(self, text: str) -> Any:
        if self._switch:
            return self._switched(text)
        if self._count is None:
            return self._value(str(text))
        parts = text.split()
        if isinstance(self._count, int) and len(parts) != self._count:
            raise argparse.ArgumentTypeError(f"give {self._count} values, separated by spaces")
        return [self._value(part) for part in parts]

    def _switched(self, text: str) -> bool:
        if text.lower() not in SWITCHED_ON | SWITCHED_OFF:
            raise argparse.ArgumentTypeError("give 1, true, yes or on; or 0, false, no or off")
        return text.lower() in SWITCHED_ON

    def _value(self, text: str) -> Any:
        try:
            value = self._read(text)
        except (TypeError, ValueError) as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not a valid {self.__name__}") from error
        if self._choices is not None and value not in self._choices:
            raise argparse.ArgumentTypeError(f"choose one of {', '.join(map(str, self._choices))}")
        return value


def _destination(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _text(default: Any) -> str:
    return " ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)


def port_number(text: str) -> int:
    """Read a TCP port, 1 to 65,535. Raises ArgumentTypeError with the range."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 1 to 65535")
    return int(text)


def whole_number(minimum: int, maximum: int) -> Any:
    """Make a reader of whole numbers from minimum to maximum, both allowed, for `type=`."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if not minimum <= number <= maximum:
            raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from {minimum} to {maximum}")
        return number

    return read


def seconds(minimum: float, maximum: float) -> Any:
    """Make a reader of durations in seconds from minimum to maximum, both allowed, for `type=`."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not minimum <= number <= maximum:
            raise argparse.ArgumentTypeError(f"{text!r}: give seconds from {minimum:g} to {maximum:g}")
        return number

    return read
