"""One read of a cluster while its parts are under way: each part is what one node is asked, in one write."""

from collections.abc import Callable, Sequence
from typing import Any

from feature_store.cluster_slots import Redirect, parse_redirect
from feature_store.errors import FeatureStoreUnavailable
from feature_store.redis_connection import OnRows

OnEnd = Callable[[list[tuple[int, Redirect]], FeatureStoreUnavailable | None], None]
"""Called once per part: with the positions that are to be asked for elsewhere, or with why there is no answer."""

_ASKING = b"*1\r\n$6\r\nASKING\r\n"


class ClusterRead:
    """The rows of one read, as they come in. `on_rows` is called once: with all of them, or with the first fault."""

    __slots__ = ("_left", "_on_rows", "keys", "rows")

    def __init__(self, keys: Sequence[bytes], on_rows: OnRows) -> None:
        self.keys = keys
        self.rows: list[bytes | None] = [None] * len(keys)
        self._left = len(keys)
        self._on_rows: OnRows | None = on_rows

    def arrived(self, rows: int) -> None:
        """Count rows that are in their places."""
        self._left -= rows
        if self._left == 0 and self._on_rows is not None:
            on_rows, self._on_rows = self._on_rows, None
            on_rows(self.rows, None)

    def failed(self, fault: FeatureStoreUnavailable) -> None:
        """End the read, if it has not ended."""
        if self._on_rows is not None:
            on_rows, self._on_rows = self._on_rows, None
            on_rows(None, fault)

    def forget(self) -> None:
        """End the read without a call: its caller was told otherwise."""
        self._on_rows = None


class NodePart:
    """What one node is asked of a read: a GET for each position, each behind ASKING where the slot is on its way."""

    __slots__ = ("_arrived", "_asked_host", "_asking", "_next", "_on_end", "_positions", "_read", "_redirected")

    def __init__(self, read: ClusterRead, positions: list[int], asked_host: str, asking: bool, on_end: OnEnd) -> None:
        self._read, self._positions, self._asked_host, self._asking = read, positions, asked_host, asking
        self._on_end: OnEnd | None = on_end
        self._redirected: list[tuple[int, Redirect]] = []
        self._next = self._arrived = 0

    @property
    def command(self) -> bytes:
        """The part as bytes for one write."""
        keys = self._read.keys
        before = _ASKING if self._asking else b""
        return b"".join(
            [b"%b*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (before, len(keys[i]), keys[i]) for i in self._positions]
        )

    @property
    def replies(self) -> int:
        """How many replies it has."""
        return len(self._positions) * (1 + self._asking)

    def on_reply(self, reply: Any, fault: FeatureStoreUnavailable | None) -> None:
        """Take the next reply."""
        index = self._next
        self._next = index + 1
        if self._asking:
            index, is_row = divmod(index, 2)
            if not is_row and fault is None:
                return  # to ASKING
        if fault is not None:
            redirect = parse_redirect(fault.reason, self._asked_host)
            if redirect is None:
                self.failed(fault)
                return
            self._redirected.append((self._positions[index], redirect))
        elif reply is None or type(reply) is bytes:
            self._read.rows[self._positions[index]] = reply
            self._arrived += 1
        else:
            self.failed(FeatureStoreUnavailable(self._asked_host, "an answer to GET that is no row"))
            return
        if index + 1 == len(self._positions):
            self._read.arrived(self._arrived)
            if self._redirected and self._on_end is not None:
                self._on_end(self._redirected, None)

    def failed(self, fault: FeatureStoreUnavailable) -> None:
        """End this part without its rows, if it has not ended."""
        if self._on_end is not None:
            on_end, self._on_end = self._on_end, None
            on_end([], fault)
