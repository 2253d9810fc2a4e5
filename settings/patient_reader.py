"""Blocking looks at files from the event loop, for which a file system that hangs is a fault and no reason to wait."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from settings.daemon_thread import run_on_daemon_thread
from settings.yaml_file import ConfigurationError

READING_S_MAX: Final = 5.0

T = TypeVar("T")


class PatientReader:
    """Runs one reading at a time. about: the path that a reading which takes too long is told of."""

    def __init__(self, about: Path) -> None:
        self._about = about
        self._hanging: asyncio.Task[Any] | None = None

    async def run(self, read: Callable[[], T]) -> T:
        """Run `read` on a thread, and return or raise what it does.

        Raises ConfigurationError after READING_S_MAX, and at once while the reading before has not come back: no more
        threads hang than one.
        """
        if self.hangs:
            raise self._too_slow()
        reading = asyncio.ensure_future(run_on_daemon_thread(read, f"read-{self._about.name}"))
        await asyncio.wait({reading}, timeout=READING_S_MAX)
        if reading.done():
            return reading.result()
        self._hanging = reading
        raise self._too_slow()

    @property
    def hangs(self) -> bool:
        """Whether a reading has not come back."""
        return self._hanging is not None and not self._hanging.done()

    def _too_slow(self) -> ConfigurationError:
        return ConfigurationError(self._about, 1, f"the file system does not answer within {READING_S_MAX:g} s")
