"""What a repository holds and what became of each version: the answer to "what could be loaded, and what is?"."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from model_workers.repository import Published
from model_workers.version_files import FileStamp
from model_workers.version_policy import version_order

READY: Final = "READY"
LOADING: Final = "LOADING"
UNLOADING: Final = "UNLOADING"
UNAVAILABLE: Final = "UNAVAILABLE"

VersionKey = tuple[str, str]
"""Model and version."""

FilesStamp = tuple[tuple[str, FileStamp], ...]


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One version. `state` is READY, LOADING, UNLOADING or UNAVAILABLE, the words of Triton's repository extension.

    reason: why it is not READY, or, of one that is, why its last load anew failed; empty where there is none.
    """

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A load that failed, and the files that it failed on."""

    reason: str
    files: FilesStamp


class RepositoryIndex:
    """Keeps the last look at the repository, and the state of every version in it or served."""

    def __init__(self) -> None:
        self.published: Published = {}
        self._state_by_key: dict[VersionKey, str] = {}
        self._failure_by_key: dict[VersionKey, Failure] = {}

    def note_published(self, published: Published) -> None:
        """Keep what a scan found, and forget the failures of what is gone."""
        self.published = published
        there = {(model, version) for model, versions in published.items() for version in versions}
        self._failure_by_key = {
            key: failure for key, failure in self._failure_by_key.items() if key in there or key in self._state_by_key
        }

    def note_state(self, key: VersionKey, state: str) -> None:
        """Note what is happening to a version. UNAVAILABLE is what it is when nothing is."""
        if state == UNAVAILABLE:
            self._state_by_key.pop(key, None)
        else:
            self._state_by_key[key] = state

    def state(self, key: VersionKey) -> str:
        """Tell what is happening to a version."""
        return self._state_by_key.get(key, UNAVAILABLE)

    def note_failure(self, key: VersionKey, failure: Failure | None) -> None:
        """Note why the last load failed; None: it did not."""
        if failure is None:
            self._failure_by_key.pop(key, None)
        else:
            self._failure_by_key[key] = failure

    def failure(self, key: VersionKey) -> Failure | None:
        """Tell why the last load failed; None where it did not."""
        return self._failure_by_key.get(key)

    def entries(self) -> Iterator[IndexEntry]:
        """List every version by model, in natural order."""
        published = {(model, version) for model, versions in self.published.items() for version in versions}
        for model, version in sorted(
            published | self._state_by_key.keys() | self._failure_by_key.keys(),
            key=lambda key: (key[0], version_order(key[1])),
        ):
            yield self._entry(model, version)

    def _entry(self, model: str, version: str) -> IndexEntry:
        state, failure = self.state((model, version)), self.failure((model, version))
        reason = failure.reason if failure else "not loaded" if state == UNAVAILABLE else ""
        return IndexEntry(model, version, state, reason)
