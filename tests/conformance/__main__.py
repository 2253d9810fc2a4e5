"""Point the kit at any server of the Open Inference Protocol v2: `python -m tests.conformance --url http://…`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from settings import CommandLine
from tests.conformance.kit import CHECKS, run_checks
from tests.conformance.report import as_json, markdown, markdown_of_checks, progress_line, write_summary
from tests.conformance.target import Undrivable, discover
from tests.conformance.tensors import DATATYPES, TensorSpec
from tests.conformance.wire import AddressError, parse_address

_EPILOG = """\
examples:
  python -m tests.conformance --url http://127.0.0.1:8091 --model diagnosis
  python -m tests.conformance --url http://127.0.0.1:8000 --model m --input X:FP32:-1,30 --json results.json

Exit codes: 0 where no required check deviates, 1 where one does, 2 where nothing listens or the model cannot be driven.
Nothing is loaded, unloaded or changed on the server."""


def command_line() -> CommandLine:
    """Describe the flags."""
    line = CommandLine("python -m tests.conformance", description=__doc__, epilog=_EPILOG)
    line.option("--url", help="base URL of the server, http://host:port")
    line.option("--model", help="the model to drive; left out: the only one of the server's repository index")
    line.option("--version", help="the version to drive; left out: the server's choice")
    line.option(
        "--input",
        action="append",
        type=_tensor_spec,
        metavar="NAME:DATATYPE:SHAPE",
        help="an input, where the server's metadata has none; repeatable; -1 is a free dimension",
    )
    line.option(
        "--parameter",
        action="append",
        type=_parameter,
        metavar="NAME=VALUE",
        help="a parameter that every inference must carry; repeatable",
    )
    line.option("--identity", action="store_true", help="the outputs equal the inputs, in order: compare them")
    line.option("--json", type=Path, metavar="FILE", help="write everything that was sent and came")
    line.option("--markdown", action="store_true", help="print the tables of a page in place of the summary")
    line.option("--list", action="store_true", help="print the table of all checks and end")
    return line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every check. Returns the exit code."""
    line = command_line()
    given = line.parse_args(arguments)
    if given.list:
        sys.stdout.write(markdown_of_checks(CHECKS))
        return 0
    if given.url is None:
        line.error("--url is required (or set SEKISHO_URL)")
    try:
        address = parse_address(given.url)
        target = discover(
            address,
            model=given.model,
            version=given.version,
            inputs=given.input or (),
            parameters=dict(given.parameter or ()),
            identity=given.identity,
        )
        results = []
        for result in run_checks(target):
            results.append(result)
            sys.stderr.write(progress_line(result) + "\n")
    except (AddressError, Undrivable) as error:
        sys.stderr.write(f"{line.prog}: error: {error}\n")
        return 2
    if given.json:
        try:
            given.json.write_bytes(as_json(target, results))
        except OSError as error:
            sys.stderr.write(f"{line.prog}: error: --json: {error}\n")
            return 2
    if given.markdown:
        sys.stdout.write(markdown(results))
    else:
        write_summary(results, sys.stdout)
    return 1 if any(result.fails for result in results) else 0


def _tensor_spec(text: str) -> TensorSpec:
    name, _, rest = text.rpartition(":")
    name, _, datatype = name.rpartition(":")
    try:
        shape = tuple(int(size) for size in rest.split(","))
    except ValueError:
        shape = ()
    if not name or datatype not in DATATYPES or not shape or any(size < -1 for size in shape):
        raise argparse.ArgumentTypeError(
            f"{text!r}: write NAME:DATATYPE:SHAPE, like X:FP32:-1,30, with one of {', '.join(sorted(DATATYPES))}"
        )
    return TensorSpec(name, datatype, shape)


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=VALUE")
    try:
        read = json.loads(value)
    except ValueError:
        return name, value
    if not isinstance(read, str | int | float | bool):
        return name, value
    return name, read


if __name__ == "__main__":
    sys.exit(main())
