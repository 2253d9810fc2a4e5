"""Which versions a worker serves, of those that its repository holds."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from contracts.manifest import NAME_PATTERN

LATEST_MAX: Final = 1_024

_NAME = re.compile(NAME_PATTERN)
_DIGITS = re.compile(r"\d+|\D+")


class ModelNameError(ValueError):
    """A text is neither NAME nor NAME@VERSION."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text[:300]!r} is no model: write NAME or NAME@VERSION")
        self.text = text


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """What to serve, as it was set at start.

    models: (name, version), or (name, None) for its versions at large; none: every model at large.
    latest: how many versions of a model at large, the highest in natural order; None: all.
    """

    models: tuple[tuple[str, str | None], ...] = ()
    latest: int | None = None

    def covers(self, model: str) -> bool:
        """Say whether any version of this model is to be served."""
        return not self.models or any(name == model for name, _ in self.models)

    def select(self, model: str, versions: Iterable[str]) -> list[str]:
        """Choose among a model's versions, in natural order. A model that is not covered is chosen from at large."""
        in_order = sorted(versions, key=version_order)
        named = self._versions_named(model)
        at_large = in_order if self.latest is None else in_order[-self.latest :]
        chosen = named | set(at_large) if None in named or not named else named
        return [version for version in in_order if version in chosen]

    def stand_ins(self, model: str, versions: Iterable[str]) -> list[str]:
        """List what may serve where nothing of what is selected can: the versions below the latest, highest first.

        None for a model of which only versions are named: another one is not what was asked for.
        """
        named = self._versions_named(model)
        if self.latest is None or (named and None not in named):
            return []
        below = sorted(versions, key=version_order)[: -self.latest]
        return [version for version in reversed(below) if version not in named]

    def _versions_named(self, model: str) -> set[str | None]:
        return {version for name, version in self.models if name == model}


def read_policy(names: Sequence[str], latest: int | None) -> VersionPolicy:
    """Read a policy whose models are written NAME or NAME@VERSION. Raises ModelNameError."""
    return VersionPolicy(tuple(dict.fromkeys(_named(name) for name in names)), latest)


def version_order(version: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sort key of natural order: 9 before 10, v1.9 before v1.10, and words before numbers."""
    parts = tuple((1, int(p), "") if p.isdigit() else (0, 0, p) for p in _DIGITS.findall(version))
    return parts, version


def _named(text: str) -> tuple[str, str | None]:
    model, at, version = text.partition("@")
    if not _NAME.match(model) or (at and not _NAME.match(version)):
        raise ModelNameError(text)
    return model, version if at else None
