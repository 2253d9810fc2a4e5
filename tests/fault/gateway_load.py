"""Clients that ask a gateway without a pause, and remember every answer."""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from experiments import assign, parse_experiment
from settings.yaml_file import read_yaml_documents
from tests.integration.gateway_client import Client, Reply, until
from tests.integration.gateway_stack import Stack

CLIENTS = 8


@dataclass(frozen=True, slots=True)
class Asked:
    """One request's fate. `failure`: why there was no answer."""

    begun: float
    took_s: float
    reply: Reply | None
    failure: str | None = None

    @property
    def kind(self) -> str:
        """`whole`, the fallbacks of a degraded answer, or status and code of a refusal."""
        if self.reply is None:
            return f"no answer: {self.failure}"
        content = self.reply.json
        if self.reply.status != 200:
            return f"{self.reply.status} {content['code']}"
        return "+".join(content["degraded"]) or "whole"


class Load:
    """`CLIENTS` threads, each with a connection that it keeps for as long as the server lets it."""

    def __init__(self, port: int, model: str, requests: list[dict[str, Any]], headers: dict[str, str]) -> None:
        self._port, self._model, self._requests, self._headers = port, model, requests, headers
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(CLIENTS)]
        self.asked: list[Asked] = []

    def since(self, at: float) -> list[Asked]:
        """What was asked after a time of the monotonic clock."""
        return [asked for asked in self.asked.copy() if asked.begun >= at]

    def wait_for(self, count: int) -> float:
        """Wait until so many more requests were begun and answered. Returns the time at which the wait began."""
        begun = time.monotonic()
        until(f"{count} more answers", lambda: len(self.since(begun)) >= count, 30)
        return begun

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let every client finish its request."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        with Client(self._port) as client:
            while not self._stop.is_set():
                for request in self._requests[number::CLIENTS]:
                    begun = time.monotonic()
                    try:
                        reply = client.predict(self._model, request, self._headers)
                    except (OSError, http.client.HTTPException) as error:
                        self.asked.append(Asked(begun, time.monotonic() - begun, None, repr(error)))
                        if isinstance(error, ConnectionRefusedError):
                            return
                    else:
                        self.asked.append(Asked(begun, time.monotonic() - begun, reply))
                    if self._stop.is_set():
                        return


@contextmanager
def load(
    port: int, requests: list[dict[str, Any]], *, model: str = "ranking", headers: dict[str, str] | None = None
) -> Iterator[Load]:
    """Ask for as long as the context lasts."""
    asking = Load(port, model, requests, headers or {})
    asking.start()
    try:
        yield asking
    finally:
        asking.stop()


def requests_by_variant(stack: Stack, count: int = 40) -> dict[str, list[dict[str, Any]]]:
    """Make requests for `ranking` whose unit is drawn into each variant."""
    documents = read_yaml_documents(stack.directory / "experiments.yaml", dict)
    ranking = (parse_experiment(documents[0]),)
    found: dict[str, list[dict[str, Any]]] = {"control": [], "treatment": []}
    for user in range(600):
        variant = assign(ranking, f"u{user}", {}).variant
        found[variant.name].append({"entities": {"user": f"u{user}", "item": f"i{user % 40}"}})
    return {name: requests[:count] for name, requests in found.items()}
