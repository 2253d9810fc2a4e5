"""From a command's options to the gateway that they name."""

import argparse
import getpass
import os
import re
import socket
from pathlib import Path
from typing import Final

from experiments_cli.admin_api import AdminApi
from experiments_cli.admin_http import Address, AdminHttp, parse_address
from settings import CommandLine
from settings.command_line import seconds
from settings.tls import ClientTls, client_context

URL: Final = "http://127.0.0.1:8081"
TIMEOUT_S: Final = 10.0
TIMEOUT_S_MAX: Final = 600.0
SIGNED_CHARACTERS_MAX: Final = 256
"""Of an actor and of a reason, as the gateway takes them."""

READING: Final = "sekisho-experiments: a dry run"
"""The reason that goes with requests which change nothing."""

_KEY: Final = re.compile(r"[!-~]{1,256}\Z")


def add_connection(parser: CommandLine) -> None:
    """Add the options that say where the gateway is, and who asks."""
    parser.option("--url", help="the gateway's admin port", type=_url, default=URL, metavar="URL")
    parser.option("--key", help="an API key with the scope experiment or admin", type=_key, metavar="KEY")
    ca_help = "authorities that an https gateway is checked by, in PEM; without it, those of the system"
    parser.option("--ca", help=ca_help, type=Path, metavar="FILE")
    timeout = seconds(0.01, TIMEOUT_S_MAX)
    parser.option("--timeout-s", help="longest time of one request", type=timeout, default=TIMEOUT_S, metavar="S")


def add_signature(parser: CommandLine, *, required: bool = True) -> None:
    """Add the options that a write is signed with."""
    actor_help = "who makes the change, for the audit; your login name and host if not given; with keys, the key's name"
    parser.option("--actor", help=actor_help, type=_signed, metavar="NAME")
    parser.option("--reason", help="why, for the audit", type=_signed, required=required, metavar="TEXT")


def connect(arguments: argparse.Namespace) -> AdminApi:
    """Make the API's client. Raises ConfigurationError where --ca cannot be used."""
    address: Address = arguments.url if isinstance(arguments.url, Address) else parse_address(arguments.url)
    tls = client_context(ClientTls(ca=arguments.ca)) if address.scheme == "https" else None
    http = AdminHttp(address, key=arguments.key, tls=tls, timeout_s=arguments.timeout_s)
    actor = getattr(arguments, "actor", None) or login_name()
    return AdminApi(http, actor=actor, reason=getattr(arguments, "reason", None) or READING)


def login_name() -> str:
    """Return who is logged in, and where: `ana@laptop`."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container's user has a number, and often no name
        name = f"uid-{os.getuid()}"
    shown = "".join(c for c in f"{name}@{socket.gethostname()}" if c.isprintable())
    return shown[:SIGNED_CHARACTERS_MAX]


def _url(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _key(text: str) -> str:
    if not _KEY.match(text):
        # Not repeated: it may be a key with a stray character, and this goes to logs of CI.
        raise argparse.ArgumentTypeError("a key has neither spaces nor letters beyond ASCII")
    return text


def _signed(text: str) -> str:
    text = text.strip()
    if not 1 <= len(text) <= SIGNED_CHARACTERS_MAX or not text.isprintable():
        raise argparse.ArgumentTypeError(f"give 1 to {SIGNED_CHARACTERS_MAX} printable characters, in one line")
    return text
