"""`python -m gateway.prediction_log ROOT`: make Parquet of the streams that standard input names, one a line.

A gateway's own program: see `parquet_process`. It answers each name with a line of JSON, and ends when its input does.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Final

from settings import CommandLine

NICENESS: Final = 10
"""Serving goes first. At 10 it still gets a tenth of a core that serving wants whole: files must not pile up."""


def main() -> None:
    """Convert until standard input ends."""
    # A whole process group may be told to end. What is begun here is finished, and the gateway says when that is all.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    line = CommandLine("python -m gateway.prediction_log", description=__doc__)
    line.add_argument("root", type=Path, help="the log's directory")
    root: Path = line.parse_args().root
    for name in sys.stdin.buffer:
        answer = _convert(root, os.fsdecode(name.rstrip(b"\n")))
        with contextlib.suppress(BrokenPipeError):  # the gateway is dead; its streams are finished all the same
            os.write(sys.stdout.fileno(), answer + b"\n")


def _convert(root: Path, name: str) -> bytes:
    from gateway.prediction_log.parquet_file import convert_named  # noqa: PLC0415 - pyarrow's 60 MB, for an idle gateway

    return convert_named(root, name)


if __name__ == "__main__":
    main()
