"""`sekisho-gateway`: serve predictions over HTTP."""

import argparse
import logging
import secrets
import sys
from pathlib import Path

import uvloop

from gateway.access.keys_file import Scope
from gateway.access.new_key import KeyNameError, new_key
from gateway.app import serve, supervise
from gateway.settings import Settings
from settings import CommandLine, ConfigurationError
from settings.command_line import port_number, seconds, whole_number
from settings.descriptors import raise_descriptor_limit
from settings.tls import ClientTls, ServerTls
from telemetry.logs import FORMATS, LEVELS, configure_logging

_DESCRIPTION = """\
Serve predictions over HTTP: fetch an entity's features from Redis, draw the model variant, send the row to a model
worker, answer, and log what was predicted and from what.

Every option can also be given as the environment variable that its help names; the flag wins.
"""

_EPILOG = """\
examples:
  sekisho-gateway --config models.yaml --redis redis://127.0.0.1:6379
  sekisho-gateway --config models.yaml --port 8080 --admin-port 8081 --processes 4

  curl -s localhost:8080/v1/models/churn:predict -d '{"entities": {"user": "u42"}}' -H 'content-type: application/json'
  curl -s localhost:8081/readyz

  sekisho-gateway --new-key checkout --scopes predict outcome   make an API key; it is shown once
  sekisho-gateway --config models.yaml --keys keys.yaml --tls-cert cert.pem --tls-key key.pem
"""


def command_line() -> CommandLine:
    """Describe the options."""
    line = CommandLine("sekisho-gateway", description=_DESCRIPTION, epilog=_EPILOG)
    line.option(
        "--config", type=Path, metavar="models.yaml", help="routes: models, versions, workers; required to serve"
    )
    line.option(
        "--experiments",
        type=Path,
        metavar="PATH",
        help="a YAML file of experiments, or a directory of them; without it they live in Redis, and change there",
    )
    line.option("--redis", default="redis://127.0.0.1:6379", metavar="URL", help="the online feature store")
    line.option("--host", default="127.0.0.1", help="address of the data port")
    line.option("--port", default=8080, type=port_number, help="data port: predictions and outcomes")
    line.option("--admin-host", default="127.0.0.1", help="address of the admin port; keep it private")
    line.option("--admin-port", default=8081, type=port_number, help="admin port: health, metrics, status")
    line.option(
        "--processes",
        default=1,
        type=whole_number(1, 256),
        metavar="N",
        help="processes that share the data port, one a core at most; the admin port answers for all",
    )
    line.add_argument("--process-socket", type=Path, help=argparse.SUPPRESS)  # given by a supervisor to its processes
    line.option("--keys", type=Path, metavar="keys.yaml", help="API keys; without it, nobody needs one")
    line.option("--tls-cert", type=Path, metavar="PEM", help="certificate chain of both ports; without it, no TLS")
    line.option("--tls-key", type=Path, metavar="PEM", help="the certificate's private key")
    line.option(
        "--worker-ca",
        type=Path,
        metavar="PEM",
        help="authorities that https workers are checked by; without it, those of the system",
    )
    line.option("--worker-cert", type=Path, metavar="PEM", help="certificate chain that https workers are shown")
    line.option("--worker-key", type=Path, metavar="PEM", help="the certificate's private key")
    line.option(
        "--state-dir",
        default=Path("sekisho-data/state"),
        type=Path,
        metavar="DIR",
        help="where last good configurations and run-time changes are kept",
    )
    line.option(
        "--log-dir",
        default=Path("sekisho-data/log"),
        type=Path,
        metavar="DIR",
        help="where predictions and outcomes go",
    )
    line.option(
        "--log-file-seconds",
        default=60.0,
        type=seconds(0.05, 3600),
        metavar="S",
        help="age at which a log file becomes readable Parquet",
    )
    line.option(
        "--requests-in-flight-max",
        default=2_000,
        type=whole_number(1, 1_000_000),
        metavar="N",
        help="requests in flight above which callers are shed, sheddable ones first",
    )
    line.option(
        "--shutdown-grace-s",
        default=1.0,
        type=seconds(0, 600),
        metavar="S",
        help="how long to serve on after SIGTERM, not ready, while load balancers take notice",
    )
    line.option("--log-level", default="info", choices=LEVELS, help="least level that is logged")
    line.option("--log-format", default="json", choices=FORMATS, help="json lines, or text for people")
    # No settings but a command: a variable that made every start print a key would be a trap.
    line.add_argument("--new-key", metavar="NAME", help="make an API key, print it with its entry for --keys, and end")
    line.add_argument(
        "--scopes",
        nargs="+",
        choices=[scope.value for scope in Scope],
        default=["predict", "outcome"],
        help="of the new key: predict, outcome, experiment, admin; default predict outcome",
    )
    return line


def main(arguments: list[str] | None = None) -> int:
    """Serve until stopped. Returns 0 after a clean stop, 1 where serving failed, 2 for a wrong configuration."""
    line = command_line()
    given = line.parse_args(arguments)
    if given.new_key is not None:
        return _print_new_key(line, given)
    if given.config is None:
        line.error("--config is required (or set SEKISHO_CONFIG)")
    for flag, certificate, key in (
        ("tls", given.tls_cert, given.tls_key),
        ("worker", given.worker_cert, given.worker_key),
    ):
        if (certificate is None) != (key is None):
            line.error(f"--{flag}-cert and --{flag}-key go together")
    configure_logging(given.log_level, given.log_format)
    raise_descriptor_limit()
    settings = Settings(
        config=given.config,
        experiments=given.experiments,
        redis=given.redis,
        host=given.host,
        port=given.port,
        admin_host=given.admin_host,
        admin_port=given.admin_port,
        processes=given.processes,
        process_socket=given.process_socket,
        keys=given.keys,
        tls=None if given.tls_cert is None else ServerTls(certificate=given.tls_cert, key=given.tls_key),
        worker_tls=ClientTls(ca=given.worker_ca, certificate=given.worker_cert, key=given.worker_key),
        state_dir=given.state_dir,
        log_dir=given.log_dir,
        log_file_seconds=given.log_file_seconds,
        requests_in_flight_max=given.requests_in_flight_max,
        shutdown_grace_s=given.shutdown_grace_s,
    )
    try:
        if settings.processes > 1 and settings.process_socket is None:
            uvloop.run(supervise(settings, sys.argv[1:] if arguments is None else arguments))
        else:
            uvloop.run(serve(settings))
    except (ConfigurationError, ValueError) as error:
        print(f"sekisho-gateway: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"sekisho-gateway: error: {error}", file=sys.stderr)
        return 1
    logging.shutdown()
    return 0


def _print_new_key(line: CommandLine, given: argparse.Namespace) -> int:
    try:
        key, entry = new_key(given.new_key, [Scope(scope) for scope in given.scopes], secrets.token_urlsafe)
    except KeyNameError as error:
        line.error(str(error))
    print(f"The key of {given.new_key}, which is shown this once:\n\n{key}\n")
    print(f"Its entry, for the file that --keys names:\n\nkeys:\n{entry}", end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
