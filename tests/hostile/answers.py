"""Answers off the wire, as a hostile caller reads them: nothing of the server's is taken on trust."""

import json
import re
from dataclasses import dataclass

ANSWER_BYTES_MAX = 32 * 1024 * 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: (\d{1,9})\r\n", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: close\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. closes: nothing follows it."""

    status: int
    closes: bool
    body: bytes


class NotAnAnswer(ValueError):
    """What came cannot be an answer."""


class AnswerReader:
    """Cuts what comes on one connection into answers."""

    def __init__(self) -> None:
        self._received = b""

    @property
    def rest(self) -> bytes:
        """What came after the last whole answer."""
        return self._received

    def feed(self, data: bytes) -> list[Answer]:
        """Take a chunk and return the answers that are whole now. Raises NotAnAnswer."""
        self._received += data
        answers = []
        while (answer := self._next()) is not None:
            if answer.status >= 200:  # 100 Continue is none
                answers.append(answer)
        return answers

    def _next(self) -> Answer | None:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = self._received[: end + 2]
        line = _STATUS_LINE.match(head)
        if line is None:
            raise NotAnAnswer(f"no status line: {head[:100]!r}")
        status, length = int(line[1]), _CONTENT_LENGTH.search(head)
        if length is None and status not in {100, 204, 304}:
            raise NotAnAnswer(f"no content-length: {head[:300]!r}")
        size = int(length[1]) if length else 0
        if size > ANSWER_BYTES_MAX:
            raise NotAnAnswer(f"{size} bytes are announced")
        whole = end + 4 + size
        if len(self._received) < whole:
            return None
        body, self._received = self._received[end + 4 : whole], self._received[whole:]
        return Answer(status, _CLOSE.search(head) is not None, body)


def problem_of(answer: Answer) -> str | None:
    """Say what no answer may be: a server's fault, a refusal that names nothing, a NaN; None where all is well."""
    if answer.status >= 500 and answer.status not in {503, 504, 505}:  # 505: it spoke of another HTTP than 1.x
        return f"status {answer.status}"
    try:
        if answer.status < 400:
            if b"NaN" in answer.body or b"Infinity" in answer.body:
                json.loads(answer.body, parse_constant=_refuse)
            return None
        document = json.loads(answer.body)
        named = isinstance(document, dict) and (document.get("code") or document.get("error"))
    except ValueError as error:
        return f"status {answer.status} with a body that is no JSON: {error}"
    return None if named else f"status {answer.status} without `code` or `error`"


def _refuse(name: str) -> None:
    raise ValueError(f"{name} in JSON")
