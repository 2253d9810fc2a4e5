"""`sekisho-worker`: serve model versions from a model repository."""

import argparse
import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import uvloop

from model_workers.batcher import QUEUE_ROWS_MAX
from model_workers.edge import BODY_BYTES_MAX
from model_workers.errors import RepositoryError, RepositoryUnreadable
from model_workers.grpc_edge.address import GrpcAddress
from model_workers.repository import scan, select_versions
from model_workers.server import Worker, WorkerSettings
from model_workers.version_policy import LATEST_MAX, ModelNameError, VersionPolicy, read_policy
from settings import CommandLine
from settings.command_line import port_number, seconds, whole_number
from settings.descriptors import raise_descriptor_limit
from settings.ports import PortTaken, listen
from settings.release import release
from settings.tls import ServerTls
from settings.yaml_file import ConfigurationError
from telemetry.logs import FORMATS, LEVELS, configure_logging

THREADS_MAX = 64
SHUTDOWN_GRACE_S_MAX = 3_600
QUEUE_ROWS_CEILING = 1 << 24
BODY_BYTES_CEILING = 1 << 30
POLL_S_MIN, POLL_S_MAX = 0.05, 86_400

EXAMPLES = """\
examples:
  sekisho-worker --repository models                          serve every version in models/
  sekisho-worker --repository models --model diagnosis@2      serve one version
  sekisho-worker --repository models --model churn --model diagnosis@2 --port 8091
  sekisho-worker --repository models --latest 1 --poll-s 10   follow the newest version of each model
  sekisho-worker --repository models --grpc-port 8092         serve over gRPC as well

A repository holds models/NAME/VERSION/manifest.json beside each artifact. Ask a running worker with
  curl http://127.0.0.1:8090/v2/models/diagnosis

It stops on SIGTERM: not ready at once, in flight finished after the grace, exit code 0. Exit code 2 means bad usage,
1 that the port is taken, the repository cannot be listed, or no version could be loaded.
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
    raise_descriptor_limit()
    try:
        policy = _checked_policy(given)
    except RepositoryUnreadable as error:  # the usage is right
        parser.exit(1, f"{parser.prog}: error: {error}\n")
    except (RepositoryError, ModelNameError) as error:
        parser.error(str(error))
    settings = WorkerSettings(
        repository=Path(given.repository),
        policy=policy,
        poll_s=given.poll_s,
        queue_rows_max=given.queue_rows_max,
        body_bytes_max=given.body_bytes_max,
        threads=given.threads,
        shutdown_grace_s=given.shutdown_grace_s,
        release=release(),
        tls=_tls(parser, given),
        grpc=_grpc_address(parser, given.host, given.grpc_port, "--grpc-port"),
        grpc_admin=_grpc_address(parser, given.admin_host, given.grpc_admin_port, "--grpc-admin-port"),
    )
    with contextlib.ExitStack() as listeners:
        # Before the models are loaded: a taken port must not cost minutes to be told.
        data = listeners.enter_context(_listen(parser, given.host, given.port, "--port"))
        admin = None
        if given.admin_port:
            admin = listeners.enter_context(_listen(parser, given.admin_host, given.admin_port, "--admin-port"))
        _run(parser, settings, data, admin)


def _run(
    parser: argparse.ArgumentParser, settings: WorkerSettings, data: socket.socket, admin: socket.socket | None
) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            sys.exit(runner.run(_serve(settings, data, admin)))
        except PortTaken as error:
            parser.exit(1, f"{parser.prog}: error: {error}\n")
        except ConfigurationError as error:
            parser.error(str(error))


async def _serve(settings: WorkerSettings, data: socket.socket, admin: socket.socket | None) -> int:
    return await Worker(settings, _monotonic_us, _wall_clock_ms).run(data, admin)


def _checked_policy(given: argparse.Namespace) -> VersionPolicy:
    """Read what to serve, and refuse what is not there, unless polling may find it later."""
    names, repository = given.model or [], Path(given.repository)
    if given.poll_s:
        scan(repository)
    else:
        select_versions(repository, names, given.latest)
    return read_policy(names, given.latest)


def _tls(parser: argparse.ArgumentParser, given: argparse.Namespace) -> ServerTls | None:
    if (given.tls_cert is None) != (given.tls_key is None):
        parser.error("--tls-cert and --tls-key go together")
    if given.tls_cert is None:
        if given.tls_client_ca is not None:
            parser.error("--tls-client-ca goes with --tls-cert and --tls-key")
        return None
    if given.grpc_port is not None or given.grpc_admin_port is not None:
        # A port that stayed in the clear beside one that is not would be found by the wrong people first.
        parser.error("there is no TLS over gRPC here: leave the gRPC ports out, or --tls-cert")
    return ServerTls(certificate=given.tls_cert, key=given.tls_key, client_ca=given.tls_client_ca)


def _listen(parser: argparse.ArgumentParser, host: str, port: int, flag: str) -> socket.socket:
    try:
        return listen(host, port, flag)
    except PortTaken as error:
        parser.exit(1, f"{parser.prog}: error: {error}\n")
    except OSError as error:
        host_flag = "--admin-host" if "admin" in flag else "--host"
        reason = f"cannot listen on {host} port {port}: {error.strerror}; give another {host_flag}"
        parser.exit(1, f"{parser.prog}: error: {reason}\n")


def _grpc_address(parser: argparse.ArgumentParser, host: str, port: int | None, flag: str) -> GrpcAddress | None:
    """Check what a gRPC port needs. The library itself opens the port, later; here it is only tried."""
    if port is None:
        return None
    if find_spec("grpc") is None or find_spec("google") is None or find_spec("google.protobuf") is None:
        parser.error(f"{flag} needs gRPC, which is not installed: pip install 'sekisho[grpc]'")
    _listen(parser, host, port, flag).close()
    return GrpcAddress(host, port, flag)


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
    option(
        "--latest",
        type=whole_number(1, LATEST_MAX),
        metavar="N",
        help="of a model without a named version, serve the N highest versions only",
    )
    option(
        "--poll-s",
        type=_poll_seconds,
        default=0.0,
        metavar="SECONDS",
        help="look this often for versions that came or went; 0: never",
    )
    option("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for every interface")
    option("--port", type=port_number, default=8090, help="port to listen on")
    option("--admin-host", default="127.0.0.1", help="address of the admin port; keep it private")
    option("--admin-port", type=port_number, help="port on which versions are loaded and unloaded; none: nowhere")
    option("--grpc-port", type=port_number, help="port of the same protocol over gRPC; none: no gRPC")
    option(
        "--grpc-admin-port",
        type=port_number,
        help="port on which versions are loaded and unloaded over gRPC, at --admin-host; none: nowhere",
    )
    option("--tls-cert", type=Path, metavar="PEM", help="certificate chain of both ports; none: no TLS")
    option("--tls-key", type=Path, metavar="PEM", help="the certificate's private key")
    option(
        "--tls-client-ca",
        type=Path,
        metavar="PEM",
        help="serve only callers with a certificate of these authorities; none: serve all",
    )
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


def _poll_seconds(text: str) -> float:
    return 0.0 if text in ("0", "0.0") else float(seconds(POLL_S_MIN, POLL_S_MAX)(text))


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1_000


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    main()
