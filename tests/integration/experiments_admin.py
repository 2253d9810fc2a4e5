"""How these tests speak to the admin API for experiments: one experimenter, who reads before he writes."""

import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.integration.gateway_client import Client, Reply, until

WHO = {"x-sekisho-actor": "ana", "x-sekisho-reason": "a test"}
EXPERIMENTS = "/admin/v1/experiments"
NEW = {"if-none-match": "*"}
TRIES_MAX = 1_000


def document(name: str, **changed: Any) -> dict[str, Any]:
    """Write an experiment that splits `ranking` in halves; a key whose value is None is left out."""
    variants = [{"name": "control", "version": "1", "bp": 5000}, {"name": "treatment", "version": "2", "bp": 5000}]
    whole = {"experiment": name, "model": "ranking", "unit": "user", "state": "running", "variants": variants}
    return {key: value for key, value in {**whole, **changed}.items() if value is not None}


class Admin:
    """One admin port. who: what each request says of itself."""

    def __init__(self, port: int, who: Mapping[str, str] = WHO) -> None:
        self.port, self.who = port, who

    def ask(self, method: str, path: str, content: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        """Send one request on a connection of its own; bytes go as they are."""
        body = content if isinstance(content, bytes | None) else json.dumps(content).encode()
        with Client(self.port) as client:
            return client.ask(method, path, body, {"content-type": "application/json", **self.who, **(headers or {})})

    def get(self, path: str) -> Any:
        """Read a page that is there."""
        reply = self.ask("GET", path)
        assert reply.status == 200, reply.body
        return reply.json

    def create(self, content: Mapping[str, Any]) -> Reply:
        """Make an experiment, which must be possible."""
        reply = self.ask("PUT", f"{EXPERIMENTS}/{content['experiment']}", content, NEW)
        assert reply.status == 201, reply.body
        return reply

    def try_to_change(self, name: str, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> Reply:
        """Read a document, change it, and write it back, once."""
        found = self.ask("GET", f"{EXPERIMENTS}/{name}")
        assert found.status == 200, found.body
        return self.ask(
            "PUT", f"{EXPERIMENTS}/{name}", change(found.json["document"]), {"if-match": found.headers["etag"]}
        )

    def change(self, name: str, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> tuple[Reply, int]:
        """The same until nobody was faster. Returns the answer, and how often somebody was."""
        for conflicts in range(TRIES_MAX):
            reply = self.try_to_change(name, change)
            if reply.status != 412:
                assert reply.status == 200, reply.body
                return reply, conflicts
        raise AssertionError(f"somebody was faster {TRIES_MAX} times")

    def set(self, name: str, **changed: Any) -> Reply:
        """Change some keys."""
        return self.change(name, lambda document: {**document, **changed})[0]

    def clear(self) -> None:
        """Switch everything on, conclude every experiment and delete it."""
        for model in self.get("/admin/v1/kill-switch")["killed"]:
            assert self.ask("PUT", "/admin/v1/kill-switch", {"model": model, "on": False}).status == 200
        for name, found in self.get(EXPERIMENTS).items():
            if found["document"]["state"] in {"running", "paused"}:
                self.change(name, lambda document: {**document, "state": "concluded"})
            etag = self.ask("GET", f"{EXPERIMENTS}/{name}").headers["etag"]
            reply = self.ask("DELETE", f"{EXPERIMENTS}/{name}", headers={"if-match": etag})
            assert reply.status == 200, reply.body

    def status(self) -> dict[str, Any]:
        """What the status page says of experiments."""
        told: dict[str, Any] = self.get("/admin/v1/status")["experiments"]
        return told

    def has(self, revision: int) -> bool:
        """Whether the process serves by this revision, or a later one."""
        try:
            return self.status()["revision"] >= revision
        except (OSError, http.client.HTTPException):
            return False


@contextmanager
def experimenting(port: int) -> Iterator[Admin]:
    """An admin port without experiments, which is left without any."""
    admin = Admin(port)
    until("the experiments can be read", lambda: admin.status()["problem"] is None)
    admin.clear()
    try:
        yield admin
    finally:
        admin.clear()
