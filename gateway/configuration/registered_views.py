"""The feature views that versions are planned by: those that Redis has, or the last ones that it was seen to have."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from feature_store import (
    CorruptRegistry,
    FeatureStoreUnavailable,
    RegisteredView,
    decode_views,
    encode_views,
)
from gateway.configuration.last_good import StateDirectory, ignored

FILE: Final = "views.json"
START_PATIENCE_S: Final = 1.0
"""How long Redis may take for the first reading before the last good one stands in."""

READ_TIMEOUT_S: Final = 5.0

ReadViews = Callable[[], Awaitable[dict[str, RegisteredView]]]
"""Reads the registry. Raises CorruptRegistry and FeatureStoreUnavailable."""

logger = logging.getLogger(__name__)


class RegisteredViews:
    """Reads views and remembers them. clock: seconds, monotonic."""

    def __init__(self, read: ReadViews, state: StateDirectory, clock: Callable[[], float]) -> None:
        self._read, self._state, self._clock = read, state, clock
        self._seen_at_s: float | None = None
        self._looked = False
        self.views: Mapping[str, RegisteredView] = {}
        self.from_disk = False
        self.problem: str | None = None
        """Why the registry could not be read the last time; None where it could."""

    @property
    def age_s(self) -> float:
        """How long ago the registry was read, by this process or by the one that wrote the file; 0: never."""
        return 0.0 if self._seen_at_s is None else self._clock() - self._seen_at_s

    async def refresh(self) -> bool:
        """Read the registry once. Returns whether the views are others than before."""
        first, self._looked = not self._looked, True
        try:
            async with asyncio.timeout(START_PATIENCE_S if first else READ_TIMEOUT_S):
                views = await self._read()
        except (FeatureStoreUnavailable, CorruptRegistry, TimeoutError) as error:
            self._failed(str(error) or "no answer in time")
            return first and await self._take_from_disk()
        if not views and (self.views or (first and await self._take_from_disk())):
            # Views are never taken back: the registry was flushed, or it is another one that is still empty.
            self._failed("it lists no views any more")
            return first
        if self.problem is not None:
            logger.info("the feature registry can be read again")
        self.problem, self.from_disk, self._seen_at_s = None, False, self._clock()
        changed = views != self.views
        self.views = views
        await self._state.keep(FILE, encode_views(views))
        return changed

    def _failed(self, reason: str) -> None:
        # Said once: the last good views stay, for a plan does not become wrong because Redis is away.
        if self.problem is None:
            logger.warning("the feature registry cannot be read", extra={"reason": reason})
        self.problem = reason

    async def _take_from_disk(self) -> bool:
        stored = await asyncio.to_thread(self._state.read, FILE)
        if stored is None:
            return False
        try:
            views = await asyncio.to_thread(decode_views, stored.data)
        except CorruptRegistry as error:
            ignored(self._state.path_of(FILE), str(error))
            return False
        self.views, self.from_disk, self._seen_at_s = views, True, self._clock() - stored.age_s
        logger.warning(
            "views are taken from the last good ones on disk", extra={"views": len(views), "age_s": int(stored.age_s)}
        )
        return bool(views)
