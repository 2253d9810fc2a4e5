"""`sekisho-worker`: serve model versions from a model repository."""

import argparse
import asyncio
import socket
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import uvloop

from model_workers.batcher import QUEUE_ROWS_MAX
from model_workers.body import BODY_BYTES_MAX
from model_workers.errors import RepositoryError
from model_workers.repository import VersionDirectory, select_versions
from model_workers.server import Worker, WorkerSettings
from settings import CommandLine
from settings.command_line import port_number, whole_number
from settings.ports import PortTaken, listen
from telemetry.logs import FORMATS, LEVELS, configure_logging

THREADS_MAX = 64
SHUTDOWN_GRACE_S_MAX = 3_600
QUEUE_ROWS_CEILING = 1 << 24
BODY_BYTES_CEILING = 1 << 30

EXAMPLES = """\
examples:
  sekisho-worker --repository models                          serve every version in models/
  sekisho-worker --repository models --model diagnosis@2      serve one version
  sekisho-worker --repository models --model churn --model diagnosis@2 --port 8091

A repository holds models/NAME/VERSION/manifest.json beside each artifact. Ask a running worker with
  curl http://127.0.0.1:8090/v2/models/diagnosis

It stops on SIGTERM: not ready at once, in flight finished after the grace, exit code 0. Exit code 2 means bad usage,
1 that the port is taken or no version could be loaded.
"""


class _Repeatable(argparse.Action):
    """Gathers an option's values over its repetitions; given at all, they replace those of the variable."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        del parser, option_string
        self._given: list[str] = [*getattr(self, "_given", []), *values]
        setattr(namespace, self.dest, self._given)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read flags and variables, serve, and exit."""
    parser = command_line()
    given = parser.parse_args(arguments)
    configure_logging(given.log_level, given.log_format)
    try:
        directories = select_versions(Path(given.repository), given.model or [])
    except RepositoryError as error:
        parser.error(str(error))
    settings = WorkerSettings(
        queue_rows_max=given.queue_rows_max,
        body_bytes_max=given.body_bytes_max,
        threads=given.threads,
        shutdown_grace_s=given.shutdown_grace_s,
        release=_release(),
    )
    try:
        # Before the models are loaded: a taken port must not cost minutes to be told.
        listener = listen(given.host, given.port, "--port")
    except PortTaken as error:
        parser.exit(1, f"{parser.prog}: error: {error}\n")
    except OSError as error:
        reason = f"cannot listen on {given.host} port {given.port}: {error.strerror}; give another --host"
        parser.exit(1, f"{parser.prog}: error: {reason}\n")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(_serve(settings, listener, directories)))


async def _serve(settings: WorkerSettings, listener: socket.socket, directories: Sequence[VersionDirectory]) -> int:
    return await Worker(settings, _monotonic_us).run(listener, directories)


def command_line() -> CommandLine:
    """Declare the flags."""
    parser = CommandLine(
        prog="sekisho-worker",
        description="Serve model versions from a model repository over the Open Inference Protocol v2.",
        epilog=EXAMPLES,
    )
    option = parser.option
    option("--repository", required=True, metavar="DIR", help="the model repository")
    option(
        "--model",
        action=_Repeatable,
        nargs="+",
        metavar="NAME[@VERSION]",
        help="serve this model, or one version of it; may be repeated; none: all",
    )
    option("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for every interface")
    option("--port", type=port_number, default=8090, help="port to listen on")
    option(
        "--threads",
        type=whole_number(1, THREADS_MAX),
        default=1,
        metavar="N",
        help="executions in flight at once, for each version",
    )
    option(
        "--queue-rows-max",
        type=whole_number(1, QUEUE_ROWS_CEILING),
        default=QUEUE_ROWS_MAX,
        metavar="ROWS",
        help="rows that may wait for one version, and so the most of one request; beyond: 503",
    )
    option(
        "--body-bytes-max",
        type=whole_number(1, BODY_BYTES_CEILING),
        default=BODY_BYTES_MAX,
        metavar="BYTES",
        help="largest request body, as sent and decompressed; beyond: 413",
    )
    option(
        "--shutdown-grace-s",
        type=whole_number(0, SHUTDOWN_GRACE_S_MAX),
        default=5,
        metavar="SECONDS",
        help="after SIGTERM, how long to go on serving while not ready, so that callers can leave",
    )
    option("--log-level", choices=LEVELS, default="info", help="least severity that is logged")
    option("--log-format", choices=FORMATS, default="json", help="json: one object a line; text: for people")
    return parser


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1_000


def _release() -> str:
    try:
        return version("sekisho")
    except PackageNotFoundError:  # run from a source tree
        return "0+source"


if __name__ == "__main__":
    main()
