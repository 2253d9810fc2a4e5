"""Files that are read again when they change, without a restart; what was last read well stays in force."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Generic, NoReturn, TypeVar

from settings.patient_reader import PatientReader
from settings.yaml_file import ConfigurationError

LOOK_EVERY_S: Final = 1.0

T = TypeVar("T")
Stamp = tuple[int, int, int] | None

logger = logging.getLogger(__name__)


class FollowedFiles(Generic[T]):
    """Files that mean one thing together, such as a certificate and its key.

    read: reads them whole and raises ConfigurationError where something is wrong; it may block. take: puts what was
    read in force, or raises the same; it is called in the event loop's thread. The first reading is made, and taken,
    at once: it raises what they raise.
    """

    def __init__(self, name: str, paths: Iterable[Path], read: Callable[[], T], take: Callable[[T], None]) -> None:
        self.name, self._paths = name, tuple(paths)
        self._read, self._take = read, take
        # Looked at before they are read: what is written meanwhile is then seen as a change.
        self._seen, self._hung = self._stamps(), False
        self._reader = PatientReader(self._paths[0] if self._paths else Path(name))
        self.problem: str | None = None
        """Why what lies there now is not in force; None where it is."""

        take(read())

    async def look_again(self) -> None:
        """Read the files once more if they have changed."""
        try:
            seen = await self._reader.run(self._stamps)
            if seen == self._seen and not self._hung:
                return
            self._hung = False
            self._seen = seen
            self._take(await self._reader.run(self._read))
        except ConfigurationError as error:
            # One that hangs has not been seen as it is: it is read again once it can be.
            self._hung = self._reader.hangs
            if str(error) == self.problem:
                return
            self.problem = str(error)
            logger.error("files were not taken; those before stay in force", extra=self._told(reason=self.problem))  # noqa: TRY400 - the reason says all
            return
        self.problem = None
        logger.info("files were read again", extra=self._told())

    def _stamps(self) -> tuple[Stamp, ...]:
        return tuple(map(stamp_of, self._paths))

    def _told(self, **more: Any) -> dict[str, Any]:
        return {"files": self.name, "paths": list(map(str, self._paths)), **more}


async def follow(files: Iterable[FollowedFiles[Any]]) -> NoReturn:
    """Look at files every LOOK_EVERY_S until cancelled."""
    followed = tuple(files)
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        for each in followed:
            await each.look_again()


def stamp_of(path: Path) -> Stamp:
    """Say what changes when a file does; None where it is not there."""
    # Through links: a mounted Secret is a link to a folder that is replaced whole.
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
