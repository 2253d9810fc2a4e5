"""`keys.yaml`: who may ask for what, and how often. The keys are not in it, only their SHA-256.

A key is 256 random bits, so there is nothing to guess and nothing that a slow hash would have to protect:
docs/adr/0017-keys-and-tls.md.
"""

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import msgspec

from settings.yaml_file import ConfigurationError, line_of, read_yaml

KEYS_MAX: Final = 10_000
MODELS_PER_KEY_MAX: Final = 1_000
REQUESTS_PER_S_MIN: Final = 0.001
REQUESTS_PER_S_MAX: Final = 1_000_000
BURST_MAX: Final = 10_000_000

_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
_Model = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
_Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]


class Scope(StrEnum):
    """What a key may be used for."""

    PREDICT = "predict"
    OUTCOME = "outcome"
    EXPERIMENT = "experiment"
    ADMIN = "admin"


class KeyEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One key. Several may share a name, as while one takes the place of another."""

    name: _Name
    """Who has it: what logs, metrics and audit call the caller."""

    sha256: _Digest
    """Of the whole key, its prefix included, in lower-case hexadecimal digits."""

    scopes: Annotated[tuple[Scope, ...], msgspec.Meta(min_length=1, max_length=len(Scope))]
    requests_per_s: Annotated[float, msgspec.Meta(ge=REQUESTS_PER_S_MIN, le=REQUESTS_PER_S_MAX)] | None = None
    """On average, of all its scopes together; left out: as many as it likes."""

    burst: Annotated[int, msgspec.Meta(ge=1, le=BURST_MAX)] | None = None
    """At once; left out: as many as in one second, and one at least."""

    models: Annotated[tuple[_Model, ...], msgspec.Meta(min_length=1, max_length=MODELS_PER_KEY_MAX)] | None = None
    """The models that it may ask; left out: all."""

    force_variant: bool = False
    """Whether it may choose variants, where the model's route lets anyone."""

    expires: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class KeysFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    keys: Annotated[tuple[KeyEntry, ...], msgspec.Meta(min_length=1, max_length=KEYS_MAX)]


def read_keys(path: Path) -> tuple[KeyEntry, ...]:
    """Read and check `keys.yaml`. Raises ConfigurationError with file, line and what was expected."""
    entries = read_yaml(path, KeysFile).keys
    first: dict[str, int] = {}
    for index, entry in enumerate(entries):
        if entry.burst is not None and entry.requests_per_s is None:
            line = line_of(path, "keys", index, "burst")
            raise ConfigurationError(path, line, "`burst` goes with `requests_per_s`, which is not given")
        if entry.sha256 in first:
            line = line_of(path, "keys", index, "sha256")
            raise ConfigurationError(
                path, line, f"the same key as that of {entries[first[entry.sha256]].name!r}: one key is one entry"
            )
        first[entry.sha256] = index
    return entries
