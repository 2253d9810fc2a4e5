"""Hostile requests of every kind, drawn by a seeded hand: each with its bytes and whether an answer is owed to it."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.hostile.hostile_json import any_value, cut, flipped, hostile_body
from tests.integration.hostile_http import HOSTILE_NAMES, hostile_bytes
from tests.integration.hostile_inference import HOSTILE_BODIES, HostileBody, amounts, tier, visits

LARGE_BYTES = 4_096
"""Whatever has more is drawn rarely: a megabyte is as hostile once as it is ten thousand times."""

LARGE_SHARE = 0.002
NAME_BYTES_MAX = 2_000

RANKING = {
    "instances": [{"entities": {"item": "i7"}}, {"entities": {"item": "i8"}, "features": {}}],
    "entities": {"user": "u42"},
    "unit": "u42",
}
BASKET = {"entities": {"user": "u42"}, "features": {"hour": 13}, "unit": 42}
INFER = {
    "id": "7",
    "inputs": [amounts(), visits(), tier()],
    "outputs": [{"name": "total"}, {"name": "tier_echo"}],
    "parameters": {"unit": "u1", "timeout": 100_000},
}
OUTCOME = {"prediction_id": "019a3a3f-0000-7000-8000-000000000001", "row": 0, "metric": "bought", "value": 1.0}
VERSION = {"workers": ["http://127.0.0.1:9"]}
EXPERIMENT = {
    "experiment": "hostile",
    "model": "basket",
    "unit": "user",
    "state": "draft",
    "variants": [{"name": "a", "version": "1", "bp": 5000}, {"name": "b", "version": "2", "bp": 5000}],
}

PREDICTS = (("/v1/models/ranking:predict", RANKING), ("/v1/models/basket:predict", BASKET))
INFER_PATHS = ("/v2/models/basket/infer", "/v2/models/basket/versions/1/infer", "/v2/models/ranking/infer")

STRANGE_HEADERS = (
    b"x-request-timeout-ms: -1", b"x-request-timeout-ms: 0", b"x-request-timeout-ms: 1", b"x-request-timeout-ms: 1e9",
    b"x-request-timeout-ms: 99999999999", b"x-request-timeout-ms:", b"x-priority: most", b"x-priority: sheddable",
    b"x-sekisho-variant: treatment", b"x-sekisho-variant: \xff", b"x-request-id: " + b"r" * 200, b"x-request-id: \x01",
    b"traceparent: 00-zz-zz-zz", b"content-type: text/xml", b"content-type: application/json; charset=utf-16",
    b"content-type:", b"content-encoding: gzip", b"content-encoding: br", b"content-encoding: gzip, gzip",
    b"accept: */*;q=nan", b"accept-encoding: \xff", b"authorization: Bearer sk_none", b"authorization: Basic \xff",
    b"authorization: Bearer", b"inference-header-content-length: 99999999999", b"inference-header-content-length: -1",
    b"inference-header-content-length: 10", b"inference-header-content-length: 0x10", b"cookie: " + b"c" * 1_000,
    b"if-match: *", b"if-match: \"x\"", b"if-none-match: *", b"x-sekisho-actor: mallory", b"x-sekisho-reason: why not",
    b"forwarded: for=\"_x\"", b"host: other", b"range: bytes=0-1", b"expect: 100-continue", b"expect: nothing",
    b"upgrade: h2c", b"connection: upgrade", b"te: trailers", b"content-length : 3x", b"a" * 300 + b": b",
)  # fmt: skip
BREAKS_FRAMING = (b"content-length :", b"expect:", b"upgrade:", b"connection:", b"x-request-id: \x01")
"""Headers after which nobody can say how many answers are owed, or that close the connection."""

DATA_PATHS = (
    ("GET", "/v1/models/{name}"),
    ("POST", "/v1/models/{name}:predict"),
    ("GET", "/v2/models/{name}"),
    ("GET", "/v2/models/{name}/ready"),
    ("POST", "/v2/models/{name}/infer"),
    ("GET", "/v2/models/basket/versions/{name}"),
    ("POST", "/v2/models/basket/versions/{name}/infer"),
    ("GET", "/{name}"),
    ("GET", "/v2/{name}"),
    ("POST", "/{name}"),
    ("GET", "/v1/models?{name}"),
    ("GET", "/openapi.json/{name}"),
    ("POST", "/v1/outcomes/{name}"),
)
ADMIN_READS = (
    "/healthz",
    "/readyz",
    "/admin/v1/status",
    "/admin/v1/experiments",
    "/admin/v1/experiments/{name}",
    "/admin/v1/experiments/{name}/explain?unit=u1",
    "/admin/v1/experiments/ranking-lightgbm/explain?unit={name}",
    "/admin/v1/experiments/ranking-lightgbm/explain?unit=&unit={name}",
    "/admin/v1/experiments/ranking-lightgbm/explain",
    "/admin/v1/audit?{name}",
    "/admin/v1/models/{name}",
    "/admin/v1/models/basket/versions/{name}",
    "/{name}",
)
ADMIN_WRITES = (
    "/admin/v1/models/basket/versions/{name}",
    "/admin/v1/models/{name}/versions/1",
    "/admin/v1/models/{name}/versions/three",
    "/admin/v1/models/basket/default_version",
    "/admin/v1/models/{name}/default_version",
    "/admin/v1/experiments/{name}",
    "/admin/v1/experiments/hostile",
    "/admin/v1/experiments/ranking-lightgbm?dry_run={name}",
    "/admin/v1/status",
    "/admin/v1/models/ranking/versions/nine?dry_run=true",
)
LYING_LENGTHS = (b"99999999999", b"-1", b"1", b"18446744073709551616", b"+3", b"0x10", b"", b"1e3", b"5, 6", b"20")
CHUNK_SIZES = (b"%x", b"%x", b"-%x", b"%x0", b"F%xFFFFFFFFFFFFFFFF", b"0x%x", b"%x;e=" + b"e" * 500, b"%x zz")
CHUNKS_ENDS = (b"0\r\n\r\n", b"0\r\n", b"0\r\nx: y\r\n\r\n", b"", b"0\r\n" + b"t: u\r\n" * 50 + b"\r\n")
TRANSFER_ENCODINGS = (b"transfer-encoding: chunked", b"transfer-encoding: gzip, chunked", b"transfer-encoding: x")
METHODS = ("GET", "PUT", "DELETE", "POST", "PATCH", "OPTIONS", "TRACE")
NAMES = (
    *(name for name in HOSTILE_NAMES if len(name) < NAME_BYTES_MAX),
    "x" * NAME_BYTES_MAX,
    "1",
    "2",
    "basket",
)
NOBODYS_NAMES = (*NAMES[:-3], "nine", "ninety")
"""Not of what is served: whoever reaches the admin port may replace that, and good callers would rightly be refused."""


@dataclass(frozen=True, slots=True)
class Hostile:
    """One request. framed: it is whole HTTP, so exactly one answer is owed and the next request may follow."""

    kind: str
    data: bytes
    framed: bool = True


@dataclass(frozen=True, slots=True)
class Material:
    """What is drawn from beside what is made: whole bytes that are hardly HTTP, and bodies with a known fault."""

    broken: tuple[bytes, ...]
    broken_large: tuple[bytes, ...]
    bodies: tuple[HostileBody, ...]
    bodies_large: tuple[HostileBody, ...]


def material(*, admin: bool) -> Material:
    """Make what is hostile to one port. It takes megabytes, so that connections share it."""
    path, body = ("/admin/v1/status", b"") if admin else (PREDICTS[0][0], b"{}")
    broken = [b"".join(parts) for parts in hostile_bytes(path, body).values()]
    return Material(
        tuple(data for data in broken if len(data) <= LARGE_BYTES),
        tuple(data for data in broken if len(data) > LARGE_BYTES),
        tuple(hostile for hostile in HOSTILE_BODIES if len(hostile.body) <= LARGE_BYTES),
        tuple(hostile for hostile in HOSTILE_BODIES if len(hostile.body) > LARGE_BYTES),
    )


class HostileRequests:
    """An endless supply for one port, the same for the same seed."""

    def __init__(self, seed: int, found: Material, *, admin: bool) -> None:
        self._random, self._material = Random(seed), found
        self._kinds: list[Callable[[], Hostile]] = []
        weights = (
            ((self._admin_read, 60), (self._admin_write, 40))
            if admin
            else ((self._predict, 45), (self._infer, 20), (self._known_body, 12), (self._outcome, 10), (self._path, 13))
        )
        for make, weight in weights:
            self._kinds += [make] * weight

    def batch(self, size: int) -> list[Hostile]:
        """Draw requests that may be sent at once: of all but the last, an answer is owed to each."""
        drawn: list[Hostile] = []
        while len(drawn) < size and (not drawn or drawn[-1].framed):
            drawn.append(self._random.choice(self._kinds)())
        if self._random.random() < 0.5 and drawn[-1].framed:
            drawn.append(self._unframed(drawn[-1]))
        return drawn

    def _unframed(self, good: Hostile) -> Hostile:
        random, way = self._random, self._random.random()
        if way < 0.3:
            return Hostile("bytes flipped", flipped(random, good.data), framed=False)
        if way < 0.5:
            return Hostile("cut in the middle", cut(random, good.data), framed=False)
        if way < 0.6:
            return Hostile("random bytes", random.randbytes(random.randrange(1, 1_000)), framed=False)
        if way < 0.75:
            return Hostile("a length that lies", _with_length(random, good.data), framed=False)
        if way < 0.85:
            return Hostile("chunks", _chunked(random, good.data), framed=False)
        found = self._material
        broken = found.broken_large if random.random() < 10 * LARGE_SHARE else found.broken
        return Hostile("hardly HTTP", random.choice(broken), framed=False)

    def _predict(self) -> Hostile:
        path, document = self._random.choice(PREDICTS)
        return self._post("predict", path, hostile_body(self._random, document))

    def _infer(self) -> Hostile:
        random, path = self._random, self._random.choice(INFER_PATHS)
        if random.random() < 0.7:
            return self._post("infer", path, hostile_body(random, INFER))
        # Raw bytes behind the JSON part, with a length of it that is right, a little wrong, or a lie.
        document = json.loads(json.dumps(INFER))
        tail = random.randbytes(random.choice((12, 12, 11, 13, 0, 8)))
        claimed = random.choice((12, len(tail), -12, 1 << 64, 99_999_999_999, any_value(random)))
        document["inputs"][0] = {
            "name": "amounts",
            "datatype": random.choice(("FP32", "FP32", "FP64", "BYTES", "BF16", "BOOL")),
            "shape": random.choice(([1, 3], [1, 3], [3, 1], [-1, 3], [1 << 32, 1 << 32], [0, 3], [1], [1, 3, 1 << 40])),
            "parameters": {"binary_data_size": claimed},
        }
        json_part = json.dumps(document).encode("utf-8", "surrogatepass")
        length = random.choice((len(json_part), len(json_part), len(json_part) + 1, 99_999_999_999, -1, 7))
        header = b"inference-header-content-length: %d" % length
        return self._post("infer, raw bytes", path, json_part + tail, header)

    def _known_body(self) -> Hostile:
        large = self._random.random() < LARGE_SHARE
        known = self._random.choice(self._material.bodies_large if large else self._material.bodies)
        lines = [f"{name}: {value}".encode() for name, value in known.headers.items()]
        # Of the large ones, some are refused by their length alone, and their connection ends.
        return self._post("infer, known faults", INFER_PATHS[1], known.body, *lines, framed=not large)

    def _outcome(self) -> Hostile:
        body = hostile_body(self._random, OUTCOME)
        return self._post("outcome", "/v1/outcomes", b"[%b]" % body if self._random.random() < 0.3 else body)

    def _path(self) -> Hostile:
        method, path = self._random.choice(DATA_PATHS)
        if self._random.random() < 0.2:
            method = self._random.choice(METHODS)
        body = hostile_body(self._random, RANKING) if method == "POST" else b""
        return self._request("path", method, path.format(name=self._random.choice(NAMES)), body)

    def _admin_read(self) -> Hostile:
        path = self._random.choice(ADMIN_READS).format(name=self._random.choice(NAMES))
        method = "GET" if self._random.random() < 0.8 else self._random.choice(METHODS)
        return self._request("admin read", method, path, b"")

    def _admin_write(self) -> Hostile:
        random = self._random
        document = random.choice((VERSION, EXPERIMENT, {"version": "2"}))
        body = hostile_body(random, document) if random.random() < 0.8 else json.dumps(document).encode()
        path = random.choice(ADMIN_WRITES).format(name=random.choice(NOBODYS_NAMES))
        lines = [b"x-sekisho-actor: mallory", b"x-sekisho-reason: none"] if random.random() < 0.7 else []
        return self._request("admin write", random.choice(("PUT", "PUT", "DELETE", "POST")), path, body, *lines)

    def _post(self, kind: str, path: str, body: bytes, *lines: bytes, framed: bool = True) -> Hostile:
        return self._request(kind, "POST", path, body, *lines, framed=framed)

    def _request(self, kind: str, method: str, path: str, body: bytes, *lines: bytes, framed: bool = True) -> Hostile:
        random = self._random
        headers = [b"host: h", b"content-type: application/json", *lines]
        if random.random() < 0.15:
            strange = random.choice(STRANGE_HEADERS)
            headers.append(strange)
            framed = framed and not strange.startswith(BREAKS_FRAMING)
        if random.random() < 0.02:
            body = gzip.compress(body, 1)[: random.choice((None, -5))]
            headers.append(b"content-encoding: gzip")
        headers.append(b"content-length: %d" % len(body))
        head = b"\r\n".join([f"{method} {path} HTTP/1.1".encode("utf-8", "replace"), *headers, b"", b""])
        return Hostile(kind, head + body, framed)


def _with_length(random: Random, data: bytes) -> bytes:
    head, _, body = data.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"content-length")]
    if random.random() < 0.3:
        lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join([*lines, b"content-length: " + random.choice(LYING_LENGTHS), b"", body])


def _chunked(random: Random, data: bytes) -> bytes:
    head, _, body = data.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"content-length")]
    size = random.choice(CHUNK_SIZES) % len(body)
    return b"\r\n".join([*lines, random.choice(TRANSFER_ENCODINGS), b"", size, body, random.choice(CHUNKS_ENDS)])
