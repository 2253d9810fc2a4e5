"""Traffic: held-out patients, asked about again and again, and what turned out to be true of them."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from demo.served_model import MODEL

CLIENTS: Final = 4
REQUEST_TIMEOUT_S: Final = 5.0
THRESHOLD: Final = 0.5
"""The probability from which the demo's owner calls a mass malignant."""


class AnswerRefused(Exception):
    """The gateway answered with something else than success; the message holds the problem document."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One patient to ask about, and the truth."""

    patient: str
    malignant: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a visit got, and how long that took as the client saw it."""

    patient: str
    version: str
    variant: str | None
    degraded: tuple[str, ...]
    latency_ms: float


class Clinic:
    """A few clients with persistent connections, each asking, waiting, and telling what was true."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._own = threading.local()

    def replay(self, visits: list[Visit]) -> Iterator[Answer | AnswerRefused | OSError]:
        """Ask about every visit and report its outcomes; yields in the order of the visits."""
        with ThreadPoolExecutor(CLIENTS, "client") as clients:
            yield from clients.map(self._safely(self._visit), visits)

    def _safely(self, visit: Callable[[Visit], Answer]) -> Callable[[Visit], Answer | AnswerRefused | OSError]:
        def one(of: Visit) -> Answer | AnswerRefused | OSError:
            try:
                return visit(of)
            except (AnswerRefused, OSError, http.client.HTTPException) as error:
                self._own.connection = None
                return error if isinstance(error, AnswerRefused | OSError) else OSError(repr(error))

        return one

    def _visit(self, visit: Visit) -> Answer:
        begun = time.perf_counter()
        answer = self._post(f"/v1/models/{MODEL}:predict", {"entities": {"patient": visit.patient}}, 200)
        latency_ms = (time.perf_counter() - begun) * 1000
        score = answer["predictions"][0]
        called = int(score is not None and score >= THRESHOLD)
        of = {"prediction_id": answer["prediction_id"], "row": 0}
        outcomes = [
            {**of, "metric": "malignant", "value": visit.malignant},
            {**of, "metric": "correct", "value": int(called == visit.malignant)},
        ]
        self._post("/v1/outcomes", outcomes, 202)
        return Answer(visit.patient, answer["version"], answer["variant"], tuple(answer["degraded"]), latency_ms)

    def _post(self, path: str, body: Any, expected: int) -> Any:
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = http.client.HTTPConnection(
                "127.0.0.1", self._port, timeout=REQUEST_TIMEOUT_S
            )
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        if response.status != expected:
            raise AnswerRefused(f"{path}: {response.status} {content[:300].decode(errors='replace')}")
        return json.loads(content)
