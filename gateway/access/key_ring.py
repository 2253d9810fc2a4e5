"""The keys that are in force."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.access.keys_file import KeyEntry, Scope
from gateway.access.token_bucket import TokenBucket


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key's rights, and what is left of its rate. expires_at_s: since 1970, UTC."""

    name: str
    scopes: tuple[Scope, ...]
    """A tuple and no set: an enum's hash is made in Python, and a scope is found here by identity."""

    models: frozenset[str] | None
    force_variant: bool
    expires_at_s: float | None
    bucket: TokenBucket | None


KeyRing = Mapping[bytes, Key]
"""Keys by SHA-256 digest. Who guesses keys learns nothing from how long a look-up by digest takes: of two keys, the
better guess has no better digest."""


def key_ring(entries: Iterable[KeyEntry], processes: int, now_s: float, before: KeyRing | None = None) -> KeyRing:
    """Make the keys of a file's entries. Rates are split over as many processes, one request at once at least.

    before: what was in force until now; a key whose rate stays keeps what is left of it.
    """
    return {
        (digest := bytes.fromhex(entry.sha256)): Key(
            name=entry.name,
            scopes=entry.scopes,
            models=None if entry.models is None else frozenset(entry.models),
            force_variant=entry.force_variant,
            expires_at_s=None if entry.expires is None else entry.expires.timestamp(),
            bucket=_bucket(entry, processes, now_s, (before or {}).get(digest)),
        )
        for entry in entries
    }


def _bucket(entry: KeyEntry, processes: int, now_s: float, before: Key | None) -> TokenBucket | None:
    if entry.requests_per_s is None:
        return None
    rate_per_s = entry.requests_per_s / processes
    burst = max((entry.burst or entry.requests_per_s) / processes, 1.0)
    kept = None if before is None else before.bucket
    same = kept is not None and (kept.rate_per_s, kept.burst) == (rate_per_s, burst)
    return kept if same else TokenBucket(rate_per_s, burst, now_s)
