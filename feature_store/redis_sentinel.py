"""A master that sentinels name, looked for anew at each connection and again while connected."""

from dataclasses import replace
from typing import Any

from feature_store.errors import FeatureStoreUnavailable
from feature_store.redis_address import RedisAddress, SentinelAddress
from feature_store.redis_protocol import RedisProtocol, ask_once

SENTINEL_TIMEOUT_S = 0.5
"""For one sentinel's answer, with connecting; then the next one is asked."""

MASTER_RECHECK_S = 1.0
"""Between two looks at who is the master. A master that dies is noticed by its connection; this finds the one that
lives on, cut off from the others, after they have chosen another."""

HOST_CHARACTERS_MAX = 255


class SentinelMaster:
    """Locates the master: asks the sentinels in turn, beginning with the one that answered last."""

    recheck_s: float | None = MASTER_RECHECK_S

    def __init__(self, address: SentinelAddress) -> None:
        self._address = address
        self._sentinels = list(address.sentinels)
        self._question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.master_name)

    def __str__(self) -> str:
        return str(self._address)

    async def locate(self) -> RedisAddress:
        """Say where the master is. Raises FeatureStoreUnavailable with what each sentinel said, if none names it."""
        faults = []
        for sentinel in tuple(self._sentinels):
            try:
                reply = await ask_once(sentinel, *self._question, timeout_s=SENTINEL_TIMEOUT_S)
                found = self._named(reply)
            except FeatureStoreUnavailable as error:
                faults.append(f"{sentinel.host}:{sentinel.port}: {error.reason}")
                continue
            self._sentinels.remove(sentinel)
            self._sentinels.insert(0, sentinel)
            return found
        raise FeatureStoreUnavailable(str(self), f"no sentinel names the master ({'; '.join(faults)})")

    async def confirm(self, protocol: RedisProtocol) -> None:
        """Raise FeatureStoreUnavailable if this server says that it is no master: the sentinels are behind."""
        role: Any = await protocol.ask("ROLE")
        if not (isinstance(role, list) and role and role[0] == b"master"):
            raise FeatureStoreUnavailable(str(self), "the server that a sentinel names as master says that it is none")

    def _named(self, reply: Any) -> RedisAddress:
        name = self._address.master_name
        if reply is None:
            raise FeatureStoreUnavailable(str(self), f"this sentinel knows no master called {name}")
        match reply:
            case [bytes(host), bytes(port)] if len(host) <= HOST_CHARACTERS_MAX and port.isdigit() and len(port) <= 5:
                return replace(self._address.login, host=host.decode(errors="replace"), port=int(port))
        raise FeatureStoreUnavailable(str(self), "an answer of a sentinel that is no address")
