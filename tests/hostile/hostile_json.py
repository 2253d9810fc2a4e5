"""Hostile JSON: good documents of which something was made wrong, by a seeded hand."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

DEEP = 10_000
LIST_ENTRIES_MAX = 2_000
TEXT_CHARACTERS_MAX = 20_000

RAW_TOKENS = (
    b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e400", b"1e39", b"1" * 400, b"0x10", b"01", b".5", b"+1", b"--1",
    b"null", b"true", b"undefined", b'"\\ud800"', b'"\\udc00\\ud800"', b'"\xff\xfe"', b'"\xed\xa0\x80"', b'"\x00"',
    b"'x'", b"[1,]", b"{,}", b'{"a":1,"a":2}', b"/**/1", b"9223372036854775808", b"-9223372036854775809", b"1.5",
    b"99999999999", b"[[]]", b"{}", b'""', b"[]", b"",
)  # fmt: skip
"""Where a value stood, whether JSON has such a thing or not."""

STRANGE_TEXTS = (
    "..", "../../etc/passwd", "%00", "\0", "a\nb", "a\r\nx: y", "'; --", "{{7*7}}", "\u202e", "\U0001f4a9", "null",
    "NaN", "user_profile:f0", "u1\ud7ff", " ", "-1", "99999999999", "__proto__", "x" * 300,
)  # fmt: skip

STRANGE_NUMBERS = (
    -1,
    0,
    1,
    2,
    3,
    1 << 31,
    1 << 53,
    1 << 63,
    (1 << 63) - 1,
    -(1 << 63),
    99_999_999_999,
    0.5,
    1e308,
    -0.0,
)


def any_value(random: Random) -> Any:
    """Make a value that is rarely the right one."""
    (make,) = random.choices(_VALUES, _WEIGHTS)
    return make(random)


def mutated(random: Random, document: dict[str, Any]) -> dict[str, Any]:
    """Change a copy in one to three places: a value, a key, a list's length."""
    copy: dict[str, Any] = json.loads(json.dumps(document))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        place = _some_container(random, copy)
        if isinstance(place, dict):
            _change_object(random, place)
        else:
            _change_list(random, place)
    return copy


def hostile_body(random: Random, document: dict[str, Any]) -> bytes:
    """Write a document so that something of it is wrong, mostly: its values, its text, or its bytes."""
    way = random.random()
    if way < 0.08:
        return json.dumps(document).encode()  # a good one: what follows it must not suffer
    if way < 0.6:
        return json.dumps(mutated(random, document)).encode("utf-8", "surrogatepass")
    text = json.dumps(document).encode()
    if way < 0.75:
        return _with_token(random, text)
    if way < 0.95:
        return random.choice(_ON_BYTES)(random, text)
    return random.choice(_WHOLE)(random, text)


def flipped(random: Random, text: bytes) -> bytes:
    """Change a few bytes of it."""
    changed = bytearray(text)
    for _ in range(random.randrange(1, 5)):
        changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


def cut(random: Random, text: bytes) -> bytes:
    """Leave the end out."""
    return text[: random.randrange(len(text))]


def _some_container(random: Random, document: Any) -> Any:
    place = document
    while True:
        inner = [v for v in (place.values() if isinstance(place, dict) else place) if isinstance(v, dict | list) and v]
        if not inner or random.random() < 0.3:
            return place
        place = random.choice(inner)


def _change_object(random: Random, place: dict[str, Any]) -> None:
    key = random.choice(list(place)) if place else "x"
    way = random.random()
    if way < 0.6:
        place[key] = any_value(random)
    elif way < 0.8:
        place.pop(key, None)
    else:
        place[random.choice(STRANGE_TEXTS)] = any_value(random)


def _change_list(random: Random, place: list[Any]) -> None:
    way = random.random()
    if way < 0.4:
        place[random.randrange(len(place))] = any_value(random)
    elif way < 0.6:
        place.pop()
    elif way < 0.98:
        place.append(any_value(random))
    else:
        place.extend([place[0]] * random.randrange(LIST_ENTRIES_MAX))


def _with_token(random: Random, text: bytes) -> bytes:
    """Put a raw token in the place of what follows a colon or a comma."""
    places = [i + 1 for i, byte in enumerate(text) if byte in b":,["]
    at = random.choice(places)
    end = at
    while end < len(text) and text[end] not in b",]}":
        end += 1
    return text[:at] + random.choice(RAW_TOKENS) + text[end:]


def _nested(random: Random, _text: bytes) -> bytes:
    opening = random.choice((b"[", b'{"a":', b'{"inputs":[', b'{"instances":['))
    closing = {b"[": b"]", b'{"a":': b"}"}.get(opening, b"]}")
    return opening * DEEP + (b"1" + closing * DEEP if random.random() < 0.5 else b"")


_VALUES: tuple[Callable[[Random], Any], ...] = (
    lambda random: random.choice(STRANGE_NUMBERS),
    lambda random: random.choice(STRANGE_TEXTS),
    lambda random: random.choice((None, True, False, [], {})),
    lambda random: [random.choice(STRANGE_NUMBERS) for _ in range(random.randrange(8))],
    lambda random: {random.choice(STRANGE_TEXTS): random.choice(STRANGE_NUMBERS)},
    lambda random: "x" * random.randrange(1, 200),
    lambda random: "y" * random.randrange(1, TEXT_CHARACTERS_MAX),
)
_WEIGHTS = (30, 30, 10, 10, 10, 9, 1)

_ON_BYTES: tuple[Callable[[Random, bytes], bytes], ...] = (
    flipped,
    cut,
    lambda random, text: text + random.choice((b"{}", b"\0", b"]", b" x", text)),
    lambda random, text: text[:-1] + b"," + text[1:],  # every key twice
    lambda random, text: text.decode().encode(random.choice(("utf-16", "utf-32", "utf-8-sig"))),
)
_WHOLE: tuple[Callable[[Random, bytes], bytes], ...] = (
    _nested,
    lambda random, _text: random.randbytes(random.randrange(1, 400)),
    lambda random, _text: random.choice((b"", b" ", b"[]", b"7", b"null", b'""', b"{}", b"[{}]")),
)
