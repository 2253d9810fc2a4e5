"""One check's view of the server: it asks, and what went to and fro is kept for the report."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from tests.conformance.expectations import HEADER_LENGTH, Answer, Deviation, NotOffered, expect_answer
from tests.conformance.target import Target
from tests.conformance.tensors import Tensor, generated, raw_form
from tests.conformance.wire import Connection, NoAnswer, Reply

ROWS: Final = 2
EXCERPT_CHARACTERS: Final = 300
BINARY_EXTENSION: Final = "binary_tensor_data"
_JSON: Final = {"content-type": "application/json"}


class Probe:
    """Asks on a connection of its own each time, unless given one. `replies` gathers the answers of all checks."""

    def __init__(self, target: Target, replies: list[Reply]) -> None:
        self.target = target
        self.replies = replies
        self.sent: list[str] = []
        self.came: list[str] = []

    def get(self, path: str) -> Reply:
        """Ask for a page."""
        return self.ask("GET", path)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        connection: Connection | None = None,
    ) -> Reply:
        """Ask with a body of declared length. Raises Deviation where no answer comes."""
        declared = {} if body is None else {"content-length": str(len(body))}
        return self.ask_in_parts(
            method, path, [] if body is None else [body], {**declared, **(headers or {})}, connection=connection
        )

    def ask_in_parts(
        self,
        method: str,
        path: str,
        parts: Iterable[bytes],
        headers: Mapping[str, str],
        *,
        connection: Connection | None = None,
    ) -> Reply:
        """Ask with head and body exactly as given. Raises Deviation where no answer comes."""
        parts = list(parts)
        told = "".join(f" {name}: {value[:60]}" for name, value in headers.items())
        self.sent.append(f"{method} {path[:120]}{told} {_excerpt(b''.join(parts))}".rstrip())
        try:
            if connection is not None:
                reply = connection.ask_in_parts(method, path, parts, headers)
            else:
                with Connection(self.target.address) as own:
                    reply = own.ask_in_parts(method, path, parts, headers)
        except NoAnswer as error:
            self.came.append(error.reason)
            raise Deviation("an answer", _unanswered(error)) from error
        self.came.append(f"{reply.status} {reply.media_type} {_excerpt(reply.body)}".rstrip())
        self.replies.append(reply)
        return reply

    def infer(self, document: Mapping[str, Any] | bytes, *, version: str | None = None) -> Reply:
        """Post an inference request in JSON; bytes go as they are."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.ask("POST", self.target.path("infer", version=version), body, _JSON)

    def infer_raw(self, document: Mapping[str, Any], tail: bytes, *, length: str | None = None) -> Reply:
        """Post an inference request with raw bytes after its JSON. `length`: what the header says instead."""
        head = json.dumps(document).encode()
        headers = {
            "content-type": "application/octet-stream",
            HEADER_LENGTH: str(len(head)) if length is None else length,
        }
        return self.ask("POST", self.target.path("infer"), head + tail, headers)

    def answer(self, document: Mapping[str, Any] | bytes, *, version: str | None = None) -> Answer:
        """Post an inference request and expect a valid answer."""
        return expect_answer(self.infer(document, version=version), self.target.model)

    def tensors(self, rows: int = ROWS) -> list[Tensor]:
        """Make a valid tensor for each input."""
        return [generated(spec, rows) for spec in self.target.inputs]

    def request(self, tensors: Iterable[Tensor] | None = None, **fields: Any) -> dict[str, Any]:
        """Make a request in flat JSON, of valid inputs where none are given."""
        inputs = [tensor.flat() for tensor in (self.tensors() if tensors is None else tensors)]
        parameters = {**self.target.parameters, **fields.pop("parameters", {})}
        return {"inputs": inputs, **({"parameters": parameters} if parameters else {}), **fields}

    def raw_request(self, tensors: Iterable[Tensor] | None = None, **fields: Any) -> tuple[dict[str, Any], bytes]:
        """Make a request whose inputs follow as raw bytes, and those bytes."""
        tensors = self.tensors() if tensors is None else list(tensors)
        document = self.request([], **fields) | {"inputs": [tensor.raw() for tensor in tensors]}
        return document, b"".join(raw_form(tensor.datatype, tensor.values) for tensor in tensors)

    def offers(self, extension: str) -> None:
        """Go on only where the server lists the extension. Raises NotOffered."""
        if extension not in self.target.extensions:
            raise NotOffered(f"`{extension}` is not among the server's extensions")

    def serves_on(self) -> None:
        """Expect that a valid request is still answered."""
        try:
            self.answer(self.request())
        except Deviation as deviation:
            raise Deviation("a server that still answers a valid request", deviation.found) from deviation


def _unanswered(error: NoAnswer) -> str:
    if not error.connected:
        return "no connection"
    return error.reason if error.reason.startswith("no answer") else "a closed connection without an answer"


def _excerpt(data: bytes) -> str:
    text = data[: EXCERPT_CHARACTERS * 4].decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else "·" for c in text)
    return text if len(text) <= EXCERPT_CHARACTERS else f"{text[:EXCERPT_CHARACTERS]}… ({len(data)} bytes)"
