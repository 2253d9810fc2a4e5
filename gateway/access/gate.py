"""The gate: authenticates a request, looks whether it may do what it asks for, and counts it against its rate."""

import re
from collections.abc import Callable
from typing import Final

from gateway.access.key_ring import Key, KeyRing
from gateway.access.keys_file import Scope
from gateway.access.new_key import KEY_PATTERN, digest_of
from gateway.errors import Forbidden, RateLimited, Unauthenticated

CREDENTIALS_BYTES_MAX: Final = 128
"""Of an `authorization` header: `Bearer`, a key, and room for a few spaces."""

HEADERS_REMEMBERED_MAX: Final = 20_000
"""Spellings of the header of keys that are in force. Only who has a key can add one."""

_CREDENTIALS: Final = re.compile(rb"(?i:bearer) +(" + KEY_PATTERN.encode() + rb") *")


class AccessGate:
    """Lets requests of the keys of a ring through; `ring` may be replaced at any time between two requests.

    clock: monotonic seconds, for rates. wall_s: seconds since 1970, for expiry. count: told of each request of a key,
    by the key's name and what became of it.
    """

    def __init__(
        self,
        ring: KeyRing,
        clock: Callable[[], float],
        wall_s: Callable[[], float],
        count: Callable[[str, str], None],
    ) -> None:
        self._ring, self._clock, self._wall_s, self._count = ring, clock, wall_s, count
        self._by_header: dict[bytes, Key] = {}

    @property
    def ring(self) -> KeyRing:
        """The keys that are in force."""
        return self._ring

    @ring.setter
    def ring(self, ring: KeyRing) -> None:
        self._ring = ring
        self._by_header = {}

    def admit(
        self, headers: dict[bytes, bytes], scopes: tuple[Scope, ...], model: str | None = None, *, ahead: bool = False
    ) -> Key:
        """Let one request through, and return whose it is. scopes: of which one is enough.

        ahead: it is only looked at, since its body is still to come; nothing is taken of the key's rate, and it is
        counted only where it is refused.
        Raises Unauthenticated, Forbidden and RateLimited.
        """
        header = headers.get(b"authorization")
        if header is None:
            raise Unauthenticated("this needs an API key: send `authorization: Bearer KEY`", "authorization")
        key = self._by_header.get(header) or self._find(header)
        if key.expires_at_s is not None and key.expires_at_s <= self._wall_s():
            raise _unknown()
        for scope in scopes:
            if scope in key.scopes:
                break
        else:
            self._count(key.name, "forbidden")
            raise Forbidden(f"key {key.name!r} may not do this: it needs the scope {' or '.join(scopes)}")
        if key.models is not None and model is not None and model not in key.models:
            self._count(key.name, "forbidden")
            raise Forbidden(f"key {key.name!r} may not ask model {model!r}", "model")
        if key.bucket is not None:
            wait_s = key.bucket.wait_s(self._clock()) if ahead else key.bucket.take(self._clock())
            if wait_s:
                self._count(key.name, "rate_limited")
                raise RateLimited(f"key {key.name!r} has asked too often", wait_s)
        if not ahead:
            self._count(key.name, "admitted")
        return key

    def _find(self, header: bytes) -> Key:
        found = _CREDENTIALS.fullmatch(header) if len(header) <= CREDENTIALS_BYTES_MAX else None
        if found is None:
            raise Unauthenticated("the authorization is not of the form `Bearer sk_…`", "authorization")
        key = self._ring.get(digest_of(found[1]))
        if key is None:
            raise _unknown()
        if len(self._by_header) < HEADERS_REMEMBERED_MAX:
            self._by_header[header] = key
        return key


def _unknown() -> Unauthenticated:
    # The same for both: who tries keys must not learn that one was good once.
    return Unauthenticated("the key is not known here, or no longer", "authorization")
