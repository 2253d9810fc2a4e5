"""Which node of a Redis Cluster has which slots, as nodes say it: `CLUSTER SLOTS`, `MOVED` and `ASK`. Pure."""

from dataclasses import dataclass
from typing import Any

SLOTS = 16_384
HOST_CHARACTERS_MAX = 255
PORT_MAX = 65_535


@dataclass(frozen=True, slots=True)
class SlotRange:
    """The slots from `first` to `last`, with both, and the master that has them."""

    first: int
    last: int
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Redirect:
    """A node's word that a slot is elsewhere: for good, or with `asking` for this one key."""

    slot: int
    host: str
    port: int
    asking: bool


def parse_slots(reply: Any, asked_host: str) -> list[SlotRange]:
    """Read the answer to CLUSTER SLOTS. A node that does not know its own host means the one that was asked.

    Raises ValueError for anything else, and where no slot is given to any node.
    """
    if not isinstance(reply, list) or len(reply) > SLOTS:
        raise ValueError("an answer to CLUSTER SLOTS that is no list of slots")
    if not reply:
        raise ValueError("no slot of the cluster is given to any node yet")
    return [_slot_range(entry, asked_host) for entry in reply]


def parse_redirect(text: str, asked_host: str) -> Redirect | None:
    """Read an error reply as `MOVED slot host:port` or `ASK slot host:port`; None where it is neither."""
    match text.split()[:3]:
        case ["MOVED" | "ASK" as kind, slot, place] if slot.isascii() and slot.isdigit() and len(slot) <= 5:
            host, _colon, port = place.rpartition(":")
            is_number = port.isascii() and port.isdigit() and len(port) <= 5
            if int(slot) < SLOTS and is_number and _is_place(host, int(port)):
                return Redirect(int(slot), _host(host, asked_host), int(port), kind == "ASK")
    return None


def _slot_range(entry: Any, asked_host: str) -> SlotRange:
    match entry:
        case [int(first), int(last), [(bytes() | None) as host, int(port), *_], *_] if 0 <= first <= last < SLOTS:
            name = (host or b"").decode(errors="replace")
            if _is_place(name, port):
                return SlotRange(first, last, _host(name, asked_host), port)
    raise ValueError("an answer to CLUSTER SLOTS with an entry that is no range of slots with its master")


def _is_place(host: str, port: int) -> bool:
    return len(host) <= HOST_CHARACTERS_MAX and 0 < port <= PORT_MAX


def _host(host: str, asked_host: str) -> str:
    return asked_host if host in {"", "?"} else host.strip("[]")
