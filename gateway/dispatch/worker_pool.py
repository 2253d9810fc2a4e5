"""The replicas of one model version: a few persistent connections to each, mended and watched in the background."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from gateway.background_task import in_background
from gateway.dispatch.balancing import choose
from gateway.dispatch.dispatch_rules import DispatchRules
from gateway.dispatch.outlier_ejection import CONSECUTIVE_FAILURES, OutlierEjection, ReplicaHealth
from gateway.dispatch.readiness_checks import ReadinessChecks
from gateway.dispatch.replica import Replica
from gateway.dispatch.worker_address import WorkerAddress
from gateway.dispatch.worker_connection import WorkerConnection

BATCHES_IN_FLIGHT_PER_REPLICA: Final = 2
"""One being computed and one on its way, so that a worker never waits for the network.

More only moves the queue there.
"""

CONNECT_TIMEOUT_S: Final = 1.0
RECONNECT_DELAY_S_MIN: Final = 0.05
RECONNECT_DELAY_S_MAX: Final = 1.0

LOOK_S: Final = 0.25
"""How often the pool looks for slow and silent replicas, and lets ejected ones back in."""

SILENCE_S_MAX: Final = 0.25
"""How long a replica may hold rows and answer nothing before batches that another one answers count against it. A pause
for garbage or for a new version is shorter."""

REST_S_MAX: Final = 1.0
"""The longest that a worker's own `retry-after` keeps it out of use: nobody may switch itself off for an hour."""

REFUSAL_REST_S: Final = 0.05
"""How long a replica that refuses to serve is given nothing, doubled by each failure in a row, up to REST_S_MAX."""

RETIRE_S_MAX: Final = 70.0
"""How long a replica whose address is gone may take to finish: longer than any deadline."""

logger = logging.getLogger(__name__)


class WorkerPool:
    """Connections to every replica of one version. `on_change` is called when one came, or could not be reached.

    clock: seconds, the one that deadlines are told by. tls: for addresses that have a `server_name`.
    """

    def __init__(
        self,
        addresses: Sequence[WorkerAddress],
        clock: Callable[[], float],
        *,
        tls: ssl.SSLContext | None = None,
        rules: DispatchRules | None = None,
        random: Random | None = None,
    ) -> None:
        self.replicas: tuple[Replica, ...] = tuple(Replica(address) for address in addresses)
        self.rules = rules or DispatchRules()
        self.on_change: Callable[[], None] = lambda: None
        self._clock, self._tls = clock, tls
        self._random = random or Random()  # noqa: S311 - spreads load, no secret
        self._ejection = OutlierEjection(self._random)
        self._usable: tuple[Replica, ...] = self.replicas
        self.has_peers = len(self.replicas) > 1
        """Whether a replica has others beside it: with whom it is compared, and who stand in for it."""

        self._resting_until_s = 0.0
        self._keepers: dict[Replica, list[asyncio.Task[None]]] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._checks = ReadinessChecks(self._connect, self._checked, clock)
        self._looking: asyncio.TimerHandle | None = None
        self._started = False

    # What the dispatcher asks, for each batch ----------------------------------------------------------------------

    @property
    def reachable(self) -> bool:
        """Whether any replica can be reached. A server that merely closed an idle connection still can."""
        for replica in self.replicas:  # a loop: it is asked for each request  # noqa: SIM110
            if replica.reachable:
                return True
        return False

    def pick(self, but: Replica | None = None) -> tuple[Replica, WorkerConnection] | None:
        """Choose an idle connection of the replica that does best; None while all are busy or gone.

        but: a replica that is to be passed over where there is another one.
        """
        usable = self._usable
        if len(usable) == 1:
            (replica,) = usable
            connection = replica.idle_connection()
            return None if connection is None else (replica, connection)
        now_s = self._clock()
        candidates: Sequence[Replica] = usable
        if but is not None or now_s < self._resting_until_s:
            others = [replica for replica in usable if replica is not but]
            candidates = [replica for replica in others if replica.rests_until_s <= now_s] or others or usable
        if self.rules.balance:
            chosen = choose(candidates, self._random, now_s)
        else:
            idle = [replica for replica in candidates if replica.has_idle_connection]
            chosen = self._random.choice(idle) if idle else None
        connection = None if chosen is None else chosen.idle_connection()
        return None if chosen is None or connection is None else (chosen, connection)

    def has_other(self, replica: Replica) -> bool:
        """Whether some other replica may be given work."""
        return any(other is not replica and other.reachable for other in self._usable)

    def has_idle_other(self, replica: Replica) -> bool:
        """Whether some other replica may be given work and has none."""
        return any(other is not replica and not other.outstanding_rows and other.reachable for other in self._usable)

    # What the dispatcher tells -------------------------------------------------------------------------------------

    def succeeded(self, replica: Replica, latency_s: float, now_s: float) -> None:
        """Note an answer that a healthy worker gives."""
        replica.silent_since_s = now_s if replica.outstanding_rows else None
        self._ejection.succeeded(replica.health, latency_s, now_s)

    def failed(self, replica: Replica, now_s: float) -> None:
        """Note a batch that came to nothing for the worker's fault."""
        if not self.has_peers or not self.rules.eject:
            return
        if self._ejection.failed(replica.health, self._healths(), now_s):
            logger.warning("worker ejected", extra={"worker": replica.url, "reason": "failures in a row"})
            self._reconsider()

    def refused(self, replica: Replica, now_s: float) -> None:
        """Note that a replica does not serve what it is there for, whatever it is sent.

        It is left alone for a while besides, longer each time: whoever refuses at once looks idle. So most of a pool
        may refuse, more than can be ejected, and the others serve.
        """
        self.failed(replica, now_s)
        self.rests(replica, REFUSAL_REST_S * 2 ** min(replica.health.failures_in_row, CONSECUTIVE_FAILURES), now_s)

    def refused_rows(self, replica: Replica, now_s: float) -> None:
        """Note an answer that may be the rows' fault: neither for the replica nor against it, except that it lives."""
        replica.silent_since_s = now_s if replica.outstanding_rows else None

    def rests(self, replica: Replica, asked_s: float, now_s: float) -> None:
        """Leave a replica alone for as long as it asks, within reason, while there are others."""
        replica.rests_until_s = now_s + min(asked_s, REST_S_MAX)
        self._resting_until_s = max(self._resting_until_s, replica.rests_until_s)

    def was_late(self, replica: Replica, now_s: float) -> None:
        """Note that another replica answered first. It counts where this one has been silent for long."""
        if replica.silent_since_s is not None and now_s - replica.silent_since_s > SILENCE_S_MAX:
            for _ in range(CONSECUTIVE_FAILURES):
                self.failed(replica, now_s)

    # Its life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect, and to stay connected."""
        self._started = True
        for replica in self.replicas:
            self._keep_connected(replica)
        self._keep_looking()

    def check_readiness(self, path: str) -> None:
        """Begin to ask each replica whether it is ready to serve, once a second."""
        self._checks.start(path, self.replicas)

    def update(self, addresses: Sequence[WorkerAddress]) -> None:
        """Follow the addresses: connect to new ones; let those that are gone finish what they hold."""
        known = {replica.address for replica in self.replicas}
        wanted = dict.fromkeys(addresses)
        before, added = self.replicas, [Replica(address) for address in wanted if address not in known]
        self.replicas = (*[replica for replica in before if replica.address in wanted], *added)
        self.has_peers = len(self.replicas) > 1
        for replica in before:
            if replica.address not in wanted:
                self._retire(replica)
        if self._started:
            for replica in added:
                self._keep_connected(replica)
        self._checks.follow(self.replicas)
        self._reconsider()

    async def close(self) -> None:
        """End every connection."""
        self._started = False
        if self._looking is not None:
            self._looking.cancel()
        await self._checks.close()
        tasks = [task for keepers in self._keepers.values() for task in keepers] + list(self._retiring)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._keepers.clear()

    def look(self) -> None:
        """Look for replicas that are too slow, and let back in those whose time is over."""
        if not self.has_peers:
            return
        now_s = self._clock()
        changed = self.rules.eject and self._ejection.look(self._healths(), now_s)
        for replica in self.replicas:
            replica.weight = self._ejection.weight(replica.health, now_s)
        if changed:
            self._reconsider()

    def _keep_looking(self) -> None:
        # The next look first: whatever this one meets, ejected replicas are let back in.
        self._looking = asyncio.get_running_loop().call_later(LOOK_S, self._keep_looking)
        self.look()

    def _reconsider(self) -> None:
        """Choose anew which replicas may be given work."""
        reachable = [replica for replica in self.replicas if replica.reachable]
        if len(reachable) > 1 and self.rules.eject:
            usable = {id(health) for health in self._ejection.usable([replica.health for replica in reachable])}
            reachable = [replica for replica in reachable if id(replica.health) in usable]
        # Where none can be reached, all are kept: the first that comes back is then picked without another look.
        self._usable = tuple(reachable) or self.replicas
        now_s = self._clock()
        for replica in self.replicas:
            replica.weight = self._ejection.weight(replica.health, now_s)
        self.on_change()

    def _checked(self, replica: Replica, latency_s: float | None, now_s: float) -> None:
        """Take the result of a readiness check; no latency: it failed."""
        if not self.rules.eject:
            return
        before = replica.health.checked_out
        if latency_s is not None:
            self._ejection.probe_passed(replica.health, latency_s, now_s)
        elif self._ejection.probe_failed(replica.health, self._healths(), now_s):
            logger.warning("worker is not ready", extra={"worker": replica.url})
        if replica.health.checked_out is not before:
            self._reconsider()

    def _healths(self) -> list[ReplicaHealth]:
        return [replica.health for replica in self.replicas]

    # Connections ---------------------------------------------------------------------------------------------------

    def _keep_connected(self, replica: Replica) -> None:
        self._keepers[replica] = [
            in_background(self._keep(replica), f"connect {replica.url}") for _ in range(BATCHES_IN_FLIGHT_PER_REPLICA)
        ]

    def _retire(self, replica: Replica) -> None:
        replica.retiring = True
        task = in_background(self._finish(replica), f"retire {replica.url}")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _finish(self, replica: Replica) -> None:
        # Polled: it happens once a replica's life, and nothing is on the way of a request for it.
        give_up_s = self._clock() + RETIRE_S_MAX
        while replica.outstanding_rows and self._clock() < give_up_s:  # noqa: ASYNC110 - as said above
            await asyncio.sleep(LOOK_S)
        keepers = self._keepers.pop(replica, [])
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)

    async def _connect(self, replica: Replica, on_lost: Callable[[WorkerConnection], None]) -> WorkerConnection:
        address, loop = replica.address, asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, connection = await loop.create_connection(
                lambda: WorkerConnection(on_lost),
                address.host,
                address.port,
                ssl=self._tls if address.server_name is not None else None,
                server_hostname=address.server_name,
            )
        return connection

    async def _keep(self, replica: Replica) -> None:
        delay_s = 0.0
        while True:
            await asyncio.sleep(delay_s)
            try:
                delay_s = await self._stay_connected(replica, delay_s)
            except Exception:
                logger.exception("a connection to a worker could not be kept", extra={"worker": replica.url})
                replica.answered = False
                delay_s = RECONNECT_DELAY_S_MAX

    async def _stay_connected(self, replica: Replica, waited_s: float) -> float:
        """Connect once, until that connection is lost. Returns how long to wait before the next, in seconds."""
        loop = asyncio.get_running_loop()
        longer_s = min(max(waited_s * 2, RECONNECT_DELAY_S_MIN), RECONNECT_DELAY_S_MAX)
        lost = asyncio.Event()
        try:
            connection = await self._connect(replica, lambda _: lost.set())
        except OSError as error:  # TimeoutError is one, and so is a certificate that does not fit
            if replica.answered or not waited_s:
                logger.warning("worker cannot be reached", extra={"worker": replica.url, "reason": str(error)})
            replica.answered = False
            self._reconsider()
            return longer_s
        connected_at = loop.time()
        replica.answered = True
        replica.connections.append(connection)
        try:
            self._reconsider()
            await lost.wait()
        finally:
            replica.connections.remove(connection)
            connection.abort("the gateway keeps it no longer")
        # One that lived a while was closed for being idle, or by a restart; one that was given up was good. Replace
        # it at once: to wait would take capacity away just when answers are late, and make all of them late.
        lived = loop.time() - connected_at > RECONNECT_DELAY_S_MAX
        return 0.0 if lived or connection.given_up else longer_s
