"""Certificates for tests, made in Python: neither a machine without OpenSSL's command nor a clock can break them.

ECDSA over P-256 (FIPS 186-5, section 6.4) and just enough of X.509 (RFC 5280) in DER. Slow, and not constant in
time: for tests only.
"""

import secrets
from base64 import encodebytes
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
Point = tuple[int, int] | None

EC_PUBLIC_KEY, P_256 = bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d030107")
ECDSA_SHA_256, COMMON_NAME = bytes.fromhex("2a8648ce3d040302"), bytes.fromhex("550403")
BASIC_CONSTRAINTS, SUBJECT_ALT_NAME = bytes.fromhex("551d13"), bytes.fromhex("551d11")
VALID_FROM, VALID_TO = b"20200101000000Z", b"21200101000000Z"


@dataclass(frozen=True)
class Certificate:
    """A certificate with its private key, and the name that it goes by."""

    name: str
    secret: int
    der: bytes

    @property
    def certificate_pem(self) -> str:
        return pem("CERTIFICATE", self.der)

    @property
    def key_pem(self) -> str:
        public = bits(b"\0" + point_bytes(multiplied(self.secret, G)))
        private = tagged(0x04, self.secret.to_bytes(32, "big"))
        return pem("EC PRIVATE KEY", sequence(integer(1), private, tagged(0xA0, oid(P_256)), tagged(0xA1, public)))

    def write(self, directory: Path, name: str | None = None) -> tuple[Path, Path]:
        """Write both files; returns the certificate's path and the key's."""
        directory.mkdir(parents=True, exist_ok=True)
        paths = directory / f"{name or self.name}.pem", directory / f"{name or self.name}.key.pem"
        paths[0].write_text(self.certificate_pem)
        paths[1].write_text(self.key_pem)
        return paths


def authority(name: str) -> Certificate:
    """Make a certificate that signs others, and itself."""
    return _issue(name, None, sequence(oid(BASIC_CONSTRAINTS), b"\x01\x01\xff", octets(sequence(b"\x01\x01\xff"))))


def signed(name: str, issuer: Certificate, *names: str) -> Certificate:
    """Make a certificate for host names and addresses."""
    return _issue(name, issuer, sequence(oid(SUBJECT_ALT_NAME), octets(sequence(*map(_alternative, names)))))


def _issue(name: str, issuer: Certificate | None, extension: bytes) -> Certificate:
    secret = secrets.randbelow(N - 1) + 1
    public = sequence(sequence(oid(EC_PUBLIC_KEY), oid(P_256)), bits(b"\0" + point_bytes(multiplied(secret, G))))
    algorithm = sequence(oid(ECDSA_SHA_256))
    body = sequence(
        tagged(0xA0, integer(2)),
        integer(secrets.randbits(120)),
        algorithm,
        named(issuer.name if issuer else name),
        sequence(tagged(0x18, VALID_FROM), tagged(0x18, VALID_TO)),
        named(name),
        public,
        tagged(0xA3, sequence(extension)),
    )
    signature = signature_of(body, issuer.secret if issuer else secret)
    return Certificate(name, secret, sequence(body, algorithm, bits(b"\0" + signature)))


def _alternative(name: str) -> bytes:
    try:
        return tagged(0x87, ip_address(name).packed)
    except ValueError:
        return tagged(0x82, name.encode())


# ECDSA ----------------------------------------------------------------------------------------------------------------


def signature_of(message: bytes, secret: int) -> bytes:
    digest = int.from_bytes(sha256(message).digest(), "big")
    nonce = secrets.randbelow(N - 1) + 1
    point = multiplied(nonce, G)
    assert point is not None
    r = point[0] % N
    s = pow(nonce, -1, N) * (digest + r * secret) % N
    return sequence(integer(r), integer(s))


def multiplied(factor: int, point: Point) -> Point:
    total: Point = None
    while factor:
        if factor & 1:
            total = added(total, point)
        point = added(point, point)
        factor >>= 1
    return total


def added(one: Point, other: Point) -> Point:
    if one is None or other is None:
        return one or other
    if one[0] == other[0] and (one[1] + other[1]) % P == 0:
        return None
    if one == other:
        slope = (3 * one[0] * one[0] - 3) * pow(2 * one[1], -1, P) % P
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, P) % P
    x = (slope * slope - one[0] - other[0]) % P
    return x, (slope * (one[0] - x) - one[1]) % P


def point_bytes(point: Point) -> bytes:
    assert point is not None
    return b"\x04" + point[0].to_bytes(32, "big") + point[1].to_bytes(32, "big")


# DER ------------------------------------------------------------------------------------------------------------------


def tagged(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def sequence(*parts: bytes) -> bytes:
    return tagged(0x30, b"".join(parts))


def integer(value: int) -> bytes:
    return tagged(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def oid(encoded: bytes) -> bytes:
    return tagged(0x06, encoded)


def bits(content: bytes) -> bytes:
    return tagged(0x03, content)


def octets(content: bytes) -> bytes:
    return tagged(0x04, content)


def named(common_name: str) -> bytes:
    return sequence(tagged(0x31, sequence(oid(COMMON_NAME), tagged(0x0C, common_name.encode()))))


def pem(label: str, der: bytes) -> str:
    return f"-----BEGIN {label}-----\n{encodebytes(der).decode()}-----END {label}-----\n"
