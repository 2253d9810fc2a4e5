"""Where a version's workers are: each host name is resolved to all its addresses, now and again.

A name that many addresses stand behind (a headless Service, round-robin DNS) would otherwise be one connection to
whichever address came first, and a pod that comes or goes would not be noticed.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv6Address, ip_address
from random import Random
from typing import Final
from urllib.parse import SplitResult, urlsplit

from gateway.dispatch.worker_address import WorkerAddress

RESOLVE_EVERY_S: Final = 5.0
"""About the time-to-live that cluster DNS gives to addresses of pods."""

RESOLVE_JITTER: Final = 0.2
"""Share of that time by which rounds are spread, so that many gateways do not ask in the same instant."""

RESOLVE_TIMEOUT_S: Final = 2.0
ADDRESSES_MAX: Final = 256
"""Of one version, all its names together."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives the addresses of a host name (and port), IPv4 and IPv6 as text. Raises OSError where there are none."""

logger = logging.getLogger(__name__)


async def system_resolve(host: str, port: int) -> list[str]:
    """Ask the system's resolver. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class Discovery:
    """Follows the addresses of one version's workers. on_change: told of all of them whenever they are others.

    urls: checked, `http://host:port` or `https://host:port`. An address in the place of the host is taken as it is.
    """

    def __init__(
        self,
        urls: Sequence[str],
        resolve: Resolve,
        on_change: Callable[[tuple[WorkerAddress, ...]], None],
        random: Random,
    ) -> None:
        self._workers = [urlsplit(url) for url in urls]
        self._resolve, self._on_change, self._random = resolve, on_change, random
        self._found: dict[tuple[str, int], tuple[str, ...]] = {}
        self._looking: dict[tuple[str, int], asyncio.Task[Sequence[str]]] = {}
        self._told: set[tuple[str, int]] = set()
        """Names whose last look-up failed, and of which the log says so already."""

        self._too_many_told = False
        self._task: asyncio.Task[None] | None = None
        self.addresses = self._all()

    @property
    def follows_names(self) -> bool:
        """Whether there is anything to resolve."""
        return any(not _is_address(_host(worker)) for worker in self._workers)

    def start(self) -> None:
        """Begin to resolve, unless every worker is given by its address."""
        if self.follows_names:
            self._task = asyncio.create_task(self._keep_looking(), name="discovery")

    async def close(self) -> None:
        """Stop."""
        tasks = [task for task in (self._task, *self._looking.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def look(self) -> None:
        """Resolve every name once. One that cannot be resolved keeps the addresses that it had."""
        names = {(_host(w), w.port or 0): None for w in self._workers if not _is_address(_host(w))}
        # A look-up that has not ended is waited for again, not asked anew: it holds one of the system's few threads.
        for name in names:
            if name not in self._looking:
                self._looking[name] = asyncio.ensure_future(self._resolve(*name))
        await asyncio.wait(self._looking.values(), timeout=RESOLVE_TIMEOUT_S)
        for name in names:
            self._take(name)
        addresses = self._all()
        if addresses != self.addresses:
            self.addresses = addresses
            logger.info("the workers' addresses are others", extra={"workers": [a.url for a in addresses]})
            self._on_change(addresses)

    def _take(self, name: tuple[str, int]) -> None:
        if not self._looking[name].done():
            self._failed(name, f"no answer within {RESOLVE_TIMEOUT_S:g} s")
            return
        try:
            found = self._looking.pop(name).result()
        except (OSError, UnicodeError) as error:  # a name that IDNA cannot encode is the second
            self._failed(name, str(error))
            return
        addresses = _preferred(found)
        if not addresses:
            self._failed(name, "it has no addresses")
            return
        self._told.discard(name)
        self._found[name] = addresses

    def _failed(self, name: tuple[str, int], reason: str) -> None:
        if name not in self._told:
            self._told.add(name)
            logger.warning(
                "a worker's name cannot be resolved; its last addresses stay",
                extra={"host": name[0], "reason": reason, "addresses": list(self._found.get(name, ()))},
            )

    def _all(self) -> tuple[WorkerAddress, ...]:
        found: dict[tuple[str, int, str | None], WorkerAddress] = {}
        for worker in self._workers:
            host, port = _host(worker), worker.port or 0
            for address in (host,) if _is_address(host) else self._found.get((host, port), ()):
                resolved = _at(worker, address)
                # Two names of one worker must not make it look like two.
                found.setdefault((address, port, resolved.server_name), resolved)
        if len(found) > ADDRESSES_MAX and not self._too_many_told:
            self._too_many_told = True
            logger.warning("more addresses than are used", extra={"found": len(found), "used": ADDRESSES_MAX})
        return tuple(found.values())[:ADDRESSES_MAX]

    async def _keep_looking(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(RESOLVE_EVERY_S * self._random.uniform(1 - RESOLVE_JITTER, 1 + RESOLVE_JITTER))


def _preferred(found: Sequence[str]) -> tuple[str, ...]:
    # IPv4 alone where there are both: the two families of a dual-stack name are the same pods twice. In order, so that
    # the shuffling of round-robin DNS is no change.
    by_family: tuple[set[str], set[str]] = (set(), set())
    for text in found:
        if _is_address(text):
            by_family[isinstance(ip_address(text), IPv6Address)].add(text)
    return tuple(sorted(by_family[0] or by_family[1]))


def _at(worker: SplitResult, address: str) -> WorkerAddress:
    shown = f"[{address}]" if ":" in address else address
    return WorkerAddress(
        url=f"{worker.scheme}://{shown}:{worker.port}",
        host=address,
        port=worker.port or 0,
        host_header=worker.netloc.encode(),
        server_name=_host(worker) if worker.scheme == "https" else None,
    )


def _host(worker: SplitResult) -> str:
    return worker.hostname or ""


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
