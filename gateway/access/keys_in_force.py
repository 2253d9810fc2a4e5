"""The gate of a keys file: what changes in the file changes at the gate."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from gateway.access.gate import AccessGate
from gateway.access.key_ring import key_ring
from gateway.access.keys_file import KeyEntry, read_keys
from settings.followed_files import FollowedFiles

GateFiles = FollowedFiles[tuple[KeyEntry, ...]]


def gate_of(
    path: Path,
    processes: int,
    clock: Callable[[], float],
    wall_s: Callable[[], float],
    count: Callable[[str, str], None],
) -> tuple[AccessGate, GateFiles]:
    """Read a keys file, and make its gate, for one of so many processes. Raises ConfigurationError.

    The files are to be looked at again from time to time; the rest are `AccessGate`'s.
    """
    gate = AccessGate({}, clock, wall_s, count)

    def take(entries: tuple[KeyEntry, ...]) -> None:
        gate.ring = key_ring(entries, processes, clock(), gate.ring)

    return gate, FollowedFiles("keys", [path], partial(read_keys, path), take)
