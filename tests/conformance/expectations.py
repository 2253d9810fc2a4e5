"""What an answer must be. Each function raises Deviation with what was expected and what was found.

What is found is said without addresses, times and identifiers, so that two runs on one server say the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from tests.conformance.tensors import BYTES, DATATYPES, FLOATS, RawFormError, Tensor, flattened, from_raw_form
from tests.conformance.wire import NotJson, Reply, strict_json

HEADER_LENGTH = "inference-header-content-length"


class Deviation(Exception):
    """An answer is not what the check expects."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"expected {expected}; found {found}")
        self.expected, self.found = expected, found


class NotOffered(Exception):
    """The server does not have what the check is about, and need not."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A valid inference answer: its document, its tensors in order, and which of them came as raw bytes."""

    document: Mapping[str, Any]
    tensors: tuple[Tensor, ...]
    raw: frozenset[str]

    @property
    def names(self) -> list[str]:
        """The outputs' names, in the order of the answer."""
        return [tensor.name for tensor in self.tensors]

    def values(self) -> dict[str, list[Any]]:
        """The outputs' elements by name."""
        return {tensor.name: tensor.values for tensor in self.tensors}


def expect(holds: bool, expected: str, found: str) -> None:
    """Raise Deviation where the condition does not hold."""
    if not holds:
        raise Deviation(expected, found)


def expect_status(reply: Reply, status: int) -> None:
    """Expect one status."""
    expect(reply.status == status, f"status {status}", f"status {reply.status}")


def expect_object(reply: Reply, status: int = 200) -> dict[str, Any]:
    """Expect a status and a JSON object, and return that."""
    expect_status(reply, status)
    expect(bool(reply.body), "a JSON object", f"status {reply.status} with an empty body")
    document = _json_of(reply.body)
    expect(isinstance(document, dict), "a JSON object", f"a JSON {type(document).__name__}")
    return dict(document)


def expect_refusal(reply: Reply) -> str:
    """Expect a 4xx whose body is `{"error": "…"}`, and return the message."""
    expected = 'a 4xx status and `{"error": "…"}`'
    expect(reply.status >= 400, expected, f"status {reply.status}: it is taken")
    form = _error_form(reply)
    expect(reply.status < 500 and not form, expected, f"status {reply.status}{form}")
    return str(reply.json["error"])


def expect_answer(reply: Reply, model: str) -> Answer:
    """Expect a valid inference answer of a model."""
    expect(reply.status == 200, "status 200", f"status {reply.status}{_said(reply)}")
    head, tail = _split(reply)
    document = _json_of(head)
    expect(isinstance(document, dict), "a JSON object", f"a JSON {type(document).__name__}")
    named = document.get("model_name")
    expect(named == model, "`model_name` as in the URL", f"`model_name` {named!r}")
    for key in ("model_version", "id"):
        value = document.get(key, "")
        expect(isinstance(value, str), f"`{key}` a string", f"`{key}` of {type(value).__name__}")
    outputs = document.get("outputs")
    expect(isinstance(outputs, list) and bool(outputs), "a list of outputs", f"`outputs` of {type(outputs).__name__}")
    tensors = []
    for entry in outputs:
        tensor, tail = _tensor(entry, tail)
        tensors.append(tensor)
    expect(not tail, "no bytes after the last output", f"{len(tail)} bytes more")
    raw = frozenset(e["name"] for e in outputs if "binary_data_size" in (e.get("parameters") or {}))
    return Answer(document, tuple(tensors), raw)


def _split(reply: Reply) -> tuple[bytes, bytes]:
    given = reply.headers.get(HEADER_LENGTH)
    if given is None:
        return reply.body, b""
    expect(
        given.isascii() and given.isdigit() and int(given) <= len(reply.body),
        "a header length within the body",
        f"{HEADER_LENGTH} {given[:20]}",
    )
    return reply.body[: int(given)], reply.body[int(given) :]


def _tensor(entry: Any, tail: bytes) -> tuple[Tensor, bytes]:
    expect(isinstance(entry, dict), "outputs that are objects", f"an output of {type(entry).__name__}")
    name, datatype, shape = entry.get("name"), entry.get("datatype"), entry.get("shape")
    expect(isinstance(name, str), "an output's `name`", f"`name` {name!r}")
    expect(datatype in DATATYPES, f"a datatype of the protocol in {name!r}", f"{datatype!r}")
    whole = isinstance(shape, list) and all(isinstance(d, int) and not isinstance(d, bool) and d >= 0 for d in shape)
    expect(whole, f"a shape of whole numbers in {name!r}", f"{shape!r}")
    size = (entry.get("parameters") or {}).get("binary_data_size")
    if size is None:
        expect(isinstance(entry.get("data"), list), f"`data` in {name!r}", f"{type(entry.get('data')).__name__}")
        values = flattened(entry["data"])
        _expect_kind(name, datatype, values)
    else:
        expect(isinstance(size, int) and 0 <= size <= len(tail), "raw bytes as declared", f"{len(tail)} are left")
        values, tail = _raw_values(name, datatype, tail[:size]), tail[size:]
    expect(len(values) == prod(shape), f"{prod(shape)} elements in {name!r}", f"{len(values)}")
    return Tensor(name, datatype, tuple(shape), values), tail


def _raw_values(name: str, datatype: str, data: bytes) -> list[Any]:
    try:
        return from_raw_form(datatype, data)
    except RawFormError as error:
        raise Deviation(f"raw bytes of {datatype} in {name!r}", str(error)) from error


def _expect_kind(name: str, datatype: str, values: list[Any]) -> None:
    # Null stands for a NaN, which JSON has no word for; a whole number may stand for a float.
    if datatype == "BOOL":
        fits = all(isinstance(value, bool) for value in values)
    elif datatype == BYTES:
        fits = all(isinstance(value, str) for value in values)
    elif datatype in FLOATS:
        fits = all(
            value is None or (isinstance(value, float | int) and not isinstance(value, bool)) for value in values
        )
    else:
        fits = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
    expect(fits, f"elements of {datatype} in {name!r}", "elements of another kind")


def _json_of(body: bytes) -> Any:
    try:
        return strict_json(body)
    except NotJson as error:
        raise Deviation("JSON", f"no JSON ({error})") from error


def _error_form(reply: Reply) -> str:
    """Say what is wrong with the form of an error; empty where nothing is."""
    if not reply.body:
        return " with an empty body"
    try:
        document = reply.json
    except NotJson:
        return f" with a body of {reply.media_type or 'no type'} that is no JSON"
    if not isinstance(document, dict) or not isinstance(document.get("error"), str) or not document["error"]:
        keys = ", ".join(f"`{key}`" for key in document) if isinstance(document, dict) else type(document).__name__
        return f" with {keys or 'an empty object'} in place of an `error` text"
    return ""


def _said(reply: Reply) -> str:
    return "" if _error_form(reply) else f": {reply.json['error'][:120]}"
