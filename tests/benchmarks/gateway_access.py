"""What a key costs a request: the look-up, its scope, its rate, its count. Without keys it is one comparison with None.

Run: .venv/bin/python tests/benchmarks/gateway_access.py
Each request's header is bytes of its own, as they come from a connection. The least of many rounds is printed.
"""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from gateway.access.gate import AccessGate  # noqa: E402 - the path is set above
from gateway.access.key_ring import key_ring  # noqa: E402
from gateway.access.keys_file import KeyEntry, Scope  # noqa: E402
from gateway.access.new_key import digest_of  # noqa: E402
from gateway.clock import monotonic, wall_s  # noqa: E402
from telemetry.metrics import Counts  # noqa: E402

KEY = b"sk_" + b"a" * 43
REQUESTS, ROUNDS = 2_000, 50

FIELDS: dict[str, dict[str, Any]] = {
    "a key": {},
    "with a rate": {"requests_per_s": 1e6},
    "with a rate, models and an expiry": {
        "requests_per_s": 1e6,
        "models": ("churn",),
        "expires": datetime(2100, 1, 1, tzinfo=UTC),
    },
}


def least_us(gate: AccessGate) -> float:
    """Return the least time of an admission over the rounds, in µs."""
    scopes = (Scope.PREDICT,)
    found = []
    for _ in range(ROUNDS):
        headers = [{b"host": b"h", b"authorization": b"Bearer " + KEY} for _ in range(REQUESTS)]
        begun = time.perf_counter()
        for each in headers:
            gate.admit(each, scopes, "churn")
        found.append((time.perf_counter() - begun) / REQUESTS)
    return min(found) * 1e6


def main() -> None:
    """Print a line for each kind of key."""
    for said, fields in FIELDS.items():
        counts = Counts("key_requests", "requests", ("key", "outcome"), CollectorRegistry())
        entry = KeyEntry(name="bench", sha256=digest_of(KEY).hex(), scopes=(Scope.OUTCOME, Scope.PREDICT), **fields)
        gate = AccessGate(key_ring([entry], 1, monotonic()), monotonic, wall_s, counts.add)
        print(f"{least_us(gate):5.2f} µs  {said}")


if __name__ == "__main__":
    main()
