"""Log what is wrong with a repository once, and not again at every look."""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from model_workers.repository_index import VersionKey

_logger = logging.getLogger(__name__)


class RepositoryNotices:
    """Remembers what was told, and tells it again only where it had ended meanwhile."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._told_unreadable: dict[tuple[str, str | None], str] = {}
        self._told_gone: set[VersionKey] = set()

    def tell_unreadable(self, unreadable: Mapping[tuple[str, str | None], str]) -> None:
        """Tell which folders were passed over, and why. unreadable: all of them, each time."""
        for key, problem in unreadable.items():
            if self._told_unreadable.get(key) != problem:
                path = self._repository.joinpath(*filter(None, key))
                _logger.warning("%s was passed over: it %s", path, problem)
        self._told_unreadable = dict(unreadable)

    def tell_gone(self, model: str, gone: Collection[VersionKey]) -> None:
        """Tell which versions of a model serve on without being in the repository any more. gone: all of them."""
        for name, version in sorted({*gone} - self._told_gone):
            _logger.warning("%s@%s has gone from the repository and serves on: no other version could", name, version)
        self._told_gone = {key for key in self._told_gone if key[0] != model} | {*gone}
