"""Headers of a scoring request (its budget, its priority, a forced variant), and those that only its answer has."""

from typing import Final

from contracts.headers import FORCED_VARIANT, PRIORITY, REQUEST_TIMEOUT_MS
from gateway.access.key_ring import Key
from gateway.admission import Priority
from gateway.errors import ForcedVariantRefused, MalformedRequest
from gateway.predict import Prediction

VARIANT_BYTES_MAX: Final = 128

CALL_HEADERS: Final = frozenset({FORCED_VARIANT, PRIORITY, REQUEST_TIMEOUT_MS})
"""Those that are read here. Most requests have none of them."""

_PRIORITIES: Final = {priority.value.encode(): priority for priority in Priority}


def budget_ms(headers: dict[bytes, bytes], deadline_ms: int) -> float:
    """Return the caller's budget in ms, at most the route's. Raises MalformedRequest."""
    given = headers.get(REQUEST_TIMEOUT_MS)
    if given is None:
        return deadline_ms
    if not given.isdigit() or len(given) > 9 or int(given) == 0:
        shown = given[:32].decode("latin-1")
        raise MalformedRequest(f"{shown!r} is not a budget: give whole milliseconds, 1 or more", "x-request-timeout-ms")
    return min(int(given), deadline_ms)


def priority_of(headers: dict[bytes, bytes], unsaid: Priority = Priority.DEFAULT) -> Priority:
    """Return what the request is worth. Raises MalformedRequest."""
    given = headers.get(PRIORITY)
    if given is None:
        return unsaid
    priority = _PRIORITIES.get(given)
    if priority is None:
        shown = given[:32].decode("latin-1")
        raise MalformedRequest(f"{shown!r} is no priority: give {', '.join(Priority)}", "x-priority")
    return priority


def forced_variant(headers: dict[bytes, bytes], key: Key | None) -> str | None:
    """Return the variant that the caller forces; None: it is to be drawn.

    key: the caller's, None where there are no keys. Raises ForcedVariantRefused where it has no leave to.
    """
    given = headers.get(FORCED_VARIANT)
    if given is None:
        return None
    if key is not None and not key.force_variant:
        raise ForcedVariantRefused(f"key {key.name!r} may not choose a variant", "x-sekisho-variant")
    return given[:VARIANT_BYTES_MAX].decode("latin-1")


def timing(prediction: Prediction) -> bytes:
    """Write `server-timing`: where the time of an answer went, in ms."""
    scored, features_us, total_us = prediction.scored, prediction.features_us, prediction.total_us
    queue_us, infer_us = scored.queue_us, scored.infer_us
    # Whole numbers: writing four floats with three places costs more than twice as much.
    return b"features;dur=%d.%03d, queue;dur=%d.%03d, infer;dur=%d.%03d, total;dur=%d.%03d" % (
        features_us // 1000,
        features_us % 1000,
        queue_us // 1000,
        queue_us % 1000,
        infer_us // 1000,
        infer_us % 1000,
        total_us // 1000,
        total_us % 1000,
    )
