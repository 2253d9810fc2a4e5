"""Flags first, then `SEKISHO_*` variables, then the default: one rule for every program here."""

import argparse
import os
from collections.abc import Mapping
from typing import Any, NoReturn

VARIABLE_PREFIX = "SEKISHO_"


class CommandLine(argparse.ArgumentParser):
    """An argument parser whose options can also be given as environment variables.

    `--admin-port` may be given as `SEKISHO_ADMIN_PORT`; the flag wins. Help shows variable and default. Bad usage
    prints the usage, one line that says what was wrong, and exits with code 2.
    """

    def __init__(self, *args: Any, environment: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)  # an abbreviation breaks on the day that a second option shares it
        super().__init__(*args, **kwargs)
        self._environment = os.environ if environment is None else environment
        self._required_options: list[tuple[str, str]] = []

    def option(self, flag: str, *, help: str, default: Any = None, required: bool = False, **kwargs: Any) -> None:  # noqa: A002 - argparse's own word
        """Add an option that `SEKISHO_<FLAG>` can set too.

        A switch (`action="store_true"`) is set by the values 1, true, yes and on. `required` is satisfied by either.
        """
        destination = flag.removeprefix("--").replace("-", "_")
        variable = VARIABLE_PREFIX + destination.upper()
        given = self._environment.get(variable)
        switch = kwargs.get("action") == "store_true"
        shown = "" if switch or default is None else f"; default {default}"
        if required:
            self._required_options.append((flag, variable))
            shown = "; required"
        if given is not None:
            default = given.strip().lower() in {"1", "true", "yes", "on"} if switch else given
            choices = kwargs.get("choices")
            if choices is not None and given not in choices:
                self.error(f"{variable}={given}: choose one of {', '.join(map(str, choices))}")
            if kwargs.get("nargs") in {"*", "+"}:
                default = [kwargs.get("type", str)(part) for part in given.split()]
        self.add_argument(flag, dest=destination, default=default, help=f"{help} [{variable}{shown}]", **kwargs)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, then refuse what is required and was given neither as a flag nor as a variable."""
        parsed = super().parse_args(args, namespace)
        for flag, variable in self._required_options:
            if getattr(parsed, flag.removeprefix("--").replace("-", "_")) is None:
                self.error(f"{flag} is required (or set {variable})")
        return parsed

    def error(self, message: str) -> NoReturn:
        """Print usage and the fault, and exit with code 2."""
        self.print_usage()
        self.exit(2, f"{self.prog}: error: {message}\n")


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
