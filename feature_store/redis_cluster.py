"""A connection to a Redis Cluster: one to each master, and the table of who has which slot."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from redis.crc import key_slot

from feature_store.cluster_node import ClusterNode
from feature_store.cluster_read import ClusterRead, NodePart
from feature_store.cluster_slots import SLOTS, Redirect, SlotRange, parse_slots
from feature_store.errors import FeatureStoreUnavailable
from feature_store.redis_address import ClusterAddress
from feature_store.redis_connection import LOGIN_RETRY_DELAY_S, OnRows
from feature_store.redis_protocol import REPLY_TIMEOUT_S, ask_once
from feature_store.redis_replies import refuses_login

NODES_MAX = 1_000
"""Masters that are connected to; Redis itself advises no more nodes."""

REDIRECTS_MAX = 2
"""Times that one key is sent elsewhere: after MOVED from an old table, ASK from the right node while it gives away."""

LEARN_INTERVAL_MIN_S = 0.5
"""Between two looks at the table of slots, however many reads find it wrong."""

LEARN_INTERVAL_MAX_S = 10.0
"""Between two looks where no read finds it wrong."""

LEARN_TIMEOUT_S = 1.0
"""For one node's answer about slots; then another node is asked."""

NODES_ASKED_MAX = 3
"""Connected nodes asked about slots, one after another, before the nodes of the URL."""

UNUSED_MAX = 3
"""Looks at the table, one after another, in which a node has no slot before it is let go."""


class ClusterConnection:
    """Connections to every master of a cluster, which keep themselves up and follow slots that move.

    A read goes as one write to each node that has keys of it, and fails as a whole if one of these nodes is away: reads
    of different nodes, told apart by `shard_of`, are better kept apart. Keys go as a GET each: an MGET may name one
    slot only, and keys of one read seldom share one.
    """

    def __init__(self, address: ClusterAddress, *, reply_timeout_s: float = REPLY_TIMEOUT_S) -> None:
        self.address = str(address)
        """The cluster, as its URL names it, without the password."""
        self.learnt = 0
        """Tables of slots that were learnt."""
        self.redirected = 0
        """Keys that a node sent elsewhere."""
        self._seeds = address.nodes
        self._reply_timeout_s = reply_timeout_s
        self._owners: list[ClusterNode | None] = [None] * SLOTS
        self._nodes: dict[tuple[str, int], ClusterNode] = {}
        self._fault = "not connected yet"
        self._doubt = asyncio.Event()
        self._tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether at least one node would be sent a read."""
        return any(node.connection.connected for node in self._nodes.values())

    def shard_of(self, key: bytes) -> str:
        """Say which node has a key, as far as is known: reads of one node fail together."""
        owner = self._owners[key_slot(key)]
        return "" if owner is None else owner.connection.address

    async def start(self) -> None:
        """Try once to learn the slots and connect, and keep trying in the background."""
        if self._task is not None:
            return
        self._tried.clear()
        self._task = asyncio.create_task(self._keep_learning(), name=self.address)
        await self._tried.wait()

    async def close(self) -> None:
        """Drop every connection; what still waits fails. A closed connection may be started again."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        nodes, self._nodes, self._owners, self._fault = self._nodes, {}, [None] * SLOTS, "closed"
        for node in nodes.values():
            await node.close()

    def read(self, keys: Sequence[bytes], on_rows: OnRows) -> None:
        """Read the rows under `keys`. `on_rows` is called exactly once, and later, never from within this call.

        Raises FeatureStoreUnavailable where a node that has some of them is away, or nobody has their slot.
        """
        owners = self._owners
        positions_by_owner: dict[ClusterNode, list[int]] = {}
        for position, key in enumerate(keys):
            owner = owners[key_slot(key)]
            if owner is None:
                raise self._nobody_has(key_slot(key))
            positions_by_owner.setdefault(owner, []).append(position)
        read = ClusterRead(keys, on_rows)
        try:
            for owner, positions in positions_by_owner.items():
                self._ask(owner, read, positions, asking=False, redirects=0)
        except FeatureStoreUnavailable:
            self._doubt.set()
            read.forget()
            raise

    def _ask(self, node: ClusterNode, read: ClusterRead, positions: list[int], *, asking: bool, redirects: int) -> None:
        def on_end(redirected: list[tuple[int, Redirect]], fault: FeatureStoreUnavailable | None) -> None:
            if fault is not None:
                self._doubt.set()
                read.failed(fault)
            elif redirected:
                self._send_elsewhere(read, redirected, redirects + 1)

        part = NodePart(read, positions, node.host, asking, on_end)
        node.send(part)

    def _send_elsewhere(self, read: ClusterRead, redirected: list[tuple[int, Redirect]], redirects: int) -> None:
        self.redirected += len(redirected)
        if redirects > REDIRECTS_MAX:
            self._doubt.set()
            why = f"a key was sent elsewhere more than {REDIRECTS_MAX} times"
            read.failed(FeatureStoreUnavailable(self.address, why))
            return
        parts: dict[tuple[ClusterNode, bool], list[int]] = {}
        try:
            for position, redirect in redirected:
                node = self._node(redirect.host, redirect.port)
                if not redirect.asking:
                    self._owners[redirect.slot] = node
                    self._doubt.set()
                parts.setdefault((node, redirect.asking), []).append(position)
            for (node, asking), positions in parts.items():
                self._ask(node, read, positions, asking=asking, redirects=redirects)
        except FeatureStoreUnavailable as error:
            self._doubt.set()
            read.failed(error)

    async def _keep_learning(self) -> None:
        while True:
            self._doubt.clear()
            pause_s = LEARN_INTERVAL_MIN_S
            try:
                self._take(await self._learn())
            except FeatureStoreUnavailable as error:
                self._fault = error.reason
                self._doubt.set()
                pause_s = LOGIN_RETRY_DELAY_S if refuses_login(error.reason) else LEARN_INTERVAL_MIN_S
            await asyncio.gather(*(node.tried.wait() for node in self._nodes.values()))
            self._tried.set()
            await asyncio.sleep(pause_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEARN_INTERVAL_MAX_S):
                    await self._doubt.wait()

    async def _learn(self) -> list[SlotRange]:
        """Ask nodes for the table, in turn. Raises FeatureStoreUnavailable with what each said."""
        faults: list[FeatureStoreUnavailable] = []
        connected = [node for node in self._nodes.values() if node.connection.connected]
        first = self.learnt % max(len(connected), 1)  # another one each time: one that is cut off knows old things
        for node in [*connected[first:], *connected[:first]][:NODES_ASKED_MAX]:
            try:
                async with asyncio.timeout(LEARN_TIMEOUT_S):
                    return _slots(await node.connection.ask("CLUSTER", "SLOTS"), node.host, node.connection.address)
            except TimeoutError:
                faults.append(FeatureStoreUnavailable(node.connection.address, f"no answer in {LEARN_TIMEOUT_S:g} s"))
            except FeatureStoreUnavailable as error:
                faults.append(error)
        for seed in self._seeds:
            try:
                reply = await ask_once(seed, "CLUSTER", "SLOTS", timeout_s=LEARN_TIMEOUT_S)
                return _slots(reply, seed.host, str(seed))
            except FeatureStoreUnavailable as error:
                faults.append(error)
        if all(refuses_login(fault.reason) for fault in faults):
            raise faults[-1]
        raise FeatureStoreUnavailable(self.address, "; ".join(map(str, faults)))

    def _take(self, ranges: list[SlotRange]) -> None:
        owners: list[ClusterNode | None] = [None] * SLOTS
        for found in ranges:
            node = self._node(found.host, found.port)
            owners[found.first : found.last + 1] = [node] * (found.last + 1 - found.first)
        self._owners = owners
        self.learnt += 1
        self._fault = "no node has this slot"
        used = set(owners)
        for place, node in tuple(self._nodes.items()):
            node.looks_unused = 0 if node in used else node.looks_unused + 1
            if node.looks_unused >= UNUSED_MAX:
                del self._nodes[place]
                node.let_go()

    def _node(self, host: str, port: int) -> ClusterNode:
        node = self._nodes.get((host, port))
        if node is None:
            if len(self._nodes) >= NODES_MAX:
                raise FeatureStoreUnavailable(self.address, f"the cluster has more than {NODES_MAX} masters")
            node = ClusterNode(replace(self._seeds[0], host=host, port=port), self._reply_timeout_s)
            self._nodes[host, port] = node
        return node

    def _nobody_has(self, slot: int) -> FeatureStoreUnavailable:
        self._doubt.set()
        return FeatureStoreUnavailable(self.address, f"slot {slot}: {self._fault}")


def _slots(reply: Any, asked_host: str, address: str) -> list[SlotRange]:
    try:
        return parse_slots(reply, asked_host)
    except ValueError as error:
        raise FeatureStoreUnavailable(address, str(error)) from error
