"""Makes API keys: random, with a prefix by which secret scanners and people know one."""

import re
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

from gateway.access.keys_file import Scope

PREFIX: Final = "sk_"
RANDOM_BYTES: Final = 32
KEY_PATTERN: Final = r"sk_[A-Za-z0-9_-]{43}"
"""32 bytes in base64url, without the padding."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class KeyNameError(ValueError):
    """A name that the keys file would not take."""


def new_key(name: str, scopes: Sequence[Scope], random_text: Callable[[int], str]) -> tuple[str, str]:
    """Make a key. Returns it, and the entry that lets it in, as YAML for the list under `keys`.

    random_text: as `secrets.token_urlsafe`. Raises KeyNameError.
    """
    if not _NAME.fullmatch(name):
        raise KeyNameError(f"{name[:80]!r} is no name for a key: give letters, digits, `_`, `.` and `-`, at most 64")
    key = PREFIX + random_text(RANDOM_BYTES)
    entry = f'  - name: "{name}"\n    sha256: "{digest_of(key.encode()).hex()}"\n    scopes: [{", ".join(scopes)}]\n'
    return key, entry


def digest_of(key: bytes) -> bytes:
    """Return what is kept of a key."""
    return sha256(key).digest()
