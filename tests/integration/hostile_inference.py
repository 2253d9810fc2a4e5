"""Hostile bodies of inference requests: everything wrong that the protocol lets a caller say.

They are for the model `basket` of these tests: amounts FP32 [-1, 3], visits INT64 [-1], tier BYTES [-1].
"""

import gzip
import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

INFER = "/v2/models/basket/infer"
HEADER_LENGTH = "inference-header-content-length"
BOMB_BYTES = (64 << 20) + 1
"""Just more than a worker inflates."""


@dataclass(frozen=True, slots=True)
class HostileBody:
    """One body, the status of the answer, and what its message says (a regular expression)."""

    claim: str
    body: bytes
    says: str
    status: int = 400
    headers: dict[str, str] = field(default_factory=dict)


def amounts(**changes: Any) -> dict[str, Any]:
    """The first input, with some of it changed."""
    return {"name": "amounts", "datatype": "FP32", "shape": [1, 3], "data": [1, 4, 9], **changes}


def visits(**changes: Any) -> dict[str, Any]:
    """The second."""
    return {"name": "visits", "datatype": "INT64", "shape": [1], "data": [5], **changes}


def tier(**changes: Any) -> dict[str, Any]:
    """The third."""
    return {"name": "tier", "datatype": "BYTES", "shape": [1], "data": ["gold"], **changes}


def request(*inputs: dict[str, Any], **changes: Any) -> bytes:
    """A whole body, good unless changed. `inputs` stand for those of the same name."""
    by_name = {"amounts": amounts(), "visits": visits(), "tier": tier()} | {each["name"]: each for each in inputs}
    document = {"inputs": list(by_name.values()), "outputs": [{"name": "total"}, {"name": "tier_echo"}], **changes}
    return json.dumps(document).encode()


def literal(token: bytes, name: bytes = b"amounts") -> bytes:
    """A good body with the raw token in the place of the first element of an input."""
    first = {b"amounts": b"[1, 4, 9]", b"visits": b"[5]", b"tier": b'["gold"]'}[name]
    return request().replace(b'"data": ' + first, b'"data": [%b%b]' % (token, b", 4, 9" if name == b"amounts" else b""))


def shaped(token: bytes) -> bytes:
    """A good body with the raw token as the shape of `amounts`."""
    return request().replace(b'"shape": [1, 3]', b'"shape": ' + token)


def raw(json_part: bytes, tail: bytes, length: str | None = None) -> tuple[bytes, dict[str, str]]:
    """A body with raw bytes after its JSON, and the header that says so."""
    return json_part + tail, {HEADER_LENGTH: str(len(json_part)) if length is None else length}


def raw_amounts(size: Any, tail: bytes = b"\0" * 12, **changes: Any) -> tuple[bytes, dict[str, str]]:
    """The first input in raw bytes, of which it says that there are `size`."""
    entry = {
        "name": "amounts",
        "datatype": "FP32",
        "shape": [1, 3],
        "parameters": {"binary_data_size": size},
        **changes,
    }
    return raw(request(entry), tail)


def raw_tier(tail: bytes, shape: int = 1) -> tuple[bytes, dict[str, str]]:
    """The third input in raw bytes."""
    entry = {"name": "tier", "datatype": "BYTES", "shape": [shape], "parameters": {"binary_data_size": len(tail)}}
    return raw(request(entry), tail)


def _raw_case(claim: str, body_and_headers: tuple[bytes, dict[str, str]], says: str) -> HostileBody:
    return HostileBody(claim, body_and_headers[0], says, headers=body_and_headers[1])


def _length_case(claim: str, length: str, says: str = HEADER_LENGTH) -> HostileBody:
    return _raw_case(f"a header length {claim}", raw(request(), b"", length), says)


SHAPES = [
    HostileBody("dimensions that overflow 64 bits", shaped(b"[4294967296, 4294967296]"), r"inputs\[.*shape"),
    HostileBody("a product that overflows 64 bits", shaped(b"[268435456, 268435456, 256]"), "'amounts'.*elements"),
    HostileBody("a product that overflows beside a zero", shaped(b"[0, 268435456, 268435456]"), "'amounts'"),
    HostileBody("a negative dimension", shaped(b"[-1, 3]"), r"shape"),
    HostileBody("two negative dimensions", shaped(b"[-1, -3]"), r"shape"),
    HostileBody("no rows", shaped(b"[0, 3]"), "'amounts'"),
    HostileBody("no dimension", shaped(b"[]"), "'amounts'"),
    HostileBody("a fractional dimension", shaped(b"[1.5, 2]"), "shape"),
    HostileBody("an infinite dimension", shaped(b"[1e400, 3]"), "shape|out of range"),
    HostileBody("a dimension of 5,000 digits", shaped(b"[%b, 3]" % (b"9" * 5_000)), "shape|out of range"),
    HostileBody("a dimension that is a string", shaped(b'["1", 3]'), "shape"),
    HostileBody("a dimension that is null", shaped(b"[null, 3]"), "shape"),
    HostileBody("1,000 dimensions", shaped(json.dumps([1] * 1_000).encode()), "shape"),
    HostileBody("a shape that is a number", shaped(b"3"), "shape"),
    HostileBody("inputs that differ in rows", request(visits(shape=[2], data=[1, 2])), "'visits'.*2"),
]

ELEMENTS = [
    HostileBody("an element too few", request(amounts(data=[1, 2])), "'amounts'.*2"),
    HostileBody("an element too many", request(amounts(data=[1, 2, 3, 4])), "'amounts'.*4"),
    HostileBody("a million elements too many", request(amounts(data=[0] * 1_000_000)), "'amounts'.*1000000"),
    HostileBody("data nested deeper than its shape", request(amounts(data=[[[1, 4, 9]]])), "'amounts'"),
    HostileBody("ragged data", request(amounts(shape=[2, 2], data=[[1, 4, 9], [1]])), "'amounts'"),
    HostileBody("data nested ten thousand deep", literal(b"[" * 10_000 + b"]" * 10_000), "nested too deep"),
    HostileBody("data nested a million deep", literal(b"[" * 1_000_000 + b"]" * 1_000_000), "nested too deep"),
    HostileBody("data nested a million deep without end", b"[" * 1_000_000, "nested too deep|[Ee]xpected"),
    HostileBody("objects nested 700,000 deep", b'{"inputs":' * 700_000, "nested too deep|[Ee]xpected"),
    HostileBody("JSON beyond what is read", request(id="i" * (9 << 20)), "at most"),
    HostileBody("an unknown field nested ten thousand deep", b'{"x":' + b"[" * 10_000, "nested too deep"),
    HostileBody("data that is an object", request(amounts(data={})), "'amounts'"),
    HostileBody("no data", request({"name": "amounts", "datatype": "FP32", "shape": [1, 3]}), "'amounts'"),
    HostileBody("NaN", literal(b"NaN"), "invalid"),
    HostileBody("Infinity", literal(b"Infinity"), "invalid"),
    HostileBody("-Infinity", literal(b"-Infinity"), "invalid"),
    HostileBody("1e400", literal(b"1e400"), "out of range"),
    HostileBody("-1e400", literal(b"-1e400"), "out of range"),
    HostileBody("a number that FP32 has no room for", literal(b"1e39"), "'amounts'.*range"),
    HostileBody("a number of 100,000 digits", literal(b"1" * 100_000), "range|'amounts'"),
    HostileBody("true for a number", literal(b"true"), "'amounts'"),
    HostileBody("a string for a number", literal(b'"1"'), "'amounts'"),
    HostileBody("a number that INT64 has no room for", literal(b"9223372036854775808", b"visits"), "'visits'"),
    HostileBody("a fraction for a whole number", literal(b"1.5", b"visits"), "'visits'"),
    HostileBody("null for a whole number", literal(b"null", b"visits"), "'visits'"),
    HostileBody("a number for a string", literal(b"7", b"tier"), "'tier'"),
    HostileBody("a lone surrogate", literal(b'"\\ud800"', b"tier"), "surrogate|escape|UTF-8|invalid"),
    HostileBody(
        "a surrogate pair the wrong way round", literal(b'"\\udc00\\ud800"', b"tier"), "surrogate|escape|UTF-8|invalid"
    ),
    HostileBody("a surrogate in UTF-8", literal(b'"\xed\xa0\x80"', b"tier"), "UTF-8|invalid"),
    HostileBody("bytes that are not UTF-8", literal(b'"\xff\xfe"', b"tier"), "UTF-8|invalid"),
    HostileBody("a control character", literal(b'"\x00"', b"tier"), "invalid"),
]

NAMES = [
    HostileBody("no inputs", request(inputs=[]), "inputs"),
    HostileBody("an input twice", request(inputs=[amounts()] * 2), "'amounts'.*more than once"),
    HostileBody("an output twice", request(outputs=[{"name": "total"}] * 2), "'total'.*more than once"),
    HostileBody("an unknown input", request({**amounts(), "name": "weights"}), "weights"),
    HostileBody("an unknown output", request(outputs=[{"name": "nothing"}]), "'nothing'"),
    HostileBody("an unknown datatype", request(amounts(datatype="FP8")), "'FP8'"),
    HostileBody("another datatype", request(amounts(datatype="FP64")), "FP64"),
    HostileBody("100,000 inputs", request(inputs=[amounts()] * 100_000), "inputs"),
    HostileBody("100,000 outputs", request(outputs=[{"name": f"o{i}"} for i in range(100_000)]), "outputs"),
    HostileBody("100,000 parameters", request(parameters={f"p{i}": i for i in range(100_000)}), "parameters"),
    HostileBody("a parameter that is a list", request(parameters={"timeout": []}), "timeout"),
    HostileBody("a parameter that is null", request(parameters={"timeout": None}), "timeout"),
    HostileBody("a flag that is a number", request(parameters={"binary_data_output": 1}), "binary_data_output"),
    HostileBody("a name of a megabyte", request({**amounts(), "name": "n" * (1 << 20)}), "name"),
    HostileBody("an id of a megabyte", request(id="i" * (1 << 20)), "id"),
    HostileBody("an id that is a lone surrogate", request(id="\ud800"), "surrogate|escape|UTF-8|invalid|truncated"),
    HostileBody("a list", b"[]", "object"),
    HostileBody("a number", b"7", "object"),
    HostileBody("nothing", b"", "."),
    HostileBody("more after the document", request() + b"{}", "."),
    HostileBody("half a document", request()[:-20], "."),
    HostileBody("random bytes", bytes(range(256)), "."),
]  # fmt: skip

BYTES_AND_LENGTHS = [
    _length_case("of 99999999999", "99999999999", "99999999999"),
    _length_case("one beyond the body", str(len(request()) + 1), str(len(request()) + 1)),
    _length_case("inside the document", "20", "."),
    _length_case("of zero", "0", "."),
    _length_case("that is negative", "-1"),
    _length_case("with a sign", "+10"),
    _length_case("that is no number", "ten"),
    _length_case("that is hexadecimal", "0x10"),
    _length_case("that is empty", ""),
    _length_case("of 10,000 digits", "9" * 10_000),
    _raw_case("raw bytes that end too early", raw_amounts(12, b"\0" * 11), "'amounts'.*12.*11"),
    _raw_case("raw bytes of another size than the shape", raw_amounts(16, b"\0" * 16), "'amounts'.*12.*16"),
    _raw_case("raw bytes that nobody claims", raw_amounts(12, b"\0" * 13), "1 bytes follow"),
    _raw_case("a raw size that is negative", raw_amounts(-12), "'amounts'.*-12"),
    _raw_case("a raw size beyond 64 bits", raw_amounts(1 << 64), "."),
    _raw_case("a raw size that is a fraction", raw_amounts(12.0), "'amounts'.*binary_data_size"),
    _raw_case("a raw size that is true", raw_amounts(True), "'amounts'.*binary_data_size"),
    _raw_case("a raw size that is a list", raw_amounts([12]), "."),
    _raw_case("raw bytes beside data", raw_amounts(12, data=[1, 4, 9]), "'amounts'.*both"),
    _raw_case("a raw size without a header length", (raw_amounts(12, b"")[0], {}), "'amounts'.*12"),
    _raw_case("a string of 4 GiB", raw_tier(struct.pack("<I", 0xFFFFFFFF) + b"gold"), "'tier'.*4294967295"),
    _raw_case("a string one longer than its bytes", raw_tier(struct.pack("<I", 5) + b"gold"), "'tier'.*5"),
    _raw_case("half of a string's length", raw_tier(b"\4\0\0"), "'tier'"),
    _raw_case("strings too many", raw_tier(b"\0\0\0\0" * 2), "'tier'"),
    _raw_case("strings too few", raw_tier(b"\0\0\0\0", shape=2), "'tier'"),
    _raw_case("250,000 empty strings", raw_tier(b"\0" * 1_000_000), "'tier'.*250000"),
    _raw_case("a string that is not UTF-8", raw_tier(b"\2\0\0\0\xff\xfe"), "'tier'.*UTF-8"),
]  # fmt: skip


def _encoded(claim: str, encoding: str, body: bytes, says: str, status: int = 400) -> HostileBody:
    return HostileBody(claim, body, says, status, {"content-encoding": encoding})


def _bomb() -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return deflater.compress(b" " * BOMB_BYTES) + deflater.flush()


ENCODINGS = [
    _encoded("gzip that is cut short", "gzip", gzip.compress(request())[:-9], "cut short"),
    _encoded("gzip with more behind it", "gzip", gzip.compress(request()) + b"more", "more follows"),
    _encoded("gzip with a wrong checksum", "gzip", gzip.compress(request())[:-8] + b"\0" * 8, "decode"),
    _encoded("gzip that is none", "gzip", request(), "decode"),
    _encoded("gzip of nothing", "gzip", b"", "cut short"),
    _encoded("deflate that is none", "deflate", request(), "decode"),
    _encoded("a gzip bomb", "gzip", _bomb(), "decompressed", 413),
    _encoded("gzip twice", "gzip, gzip", gzip.compress(gzip.compress(request())), "gzip, gzip", 415),
    _encoded("an unknown encoding", "br", request(), "'br'", 415),
    _encoded("an encoding of a kilobyte", "x" * 1_000, request(), "x", 415),
]

HOSTILE_BODIES = [*SHAPES, *ELEMENTS, *NAMES, *BYTES_AND_LENGTHS, *ENCODINGS]
