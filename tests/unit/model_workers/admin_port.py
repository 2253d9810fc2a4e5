"""The admin port of a real worker."""

import http.client
import json
from contextlib import closing

# A load answers when it is done, which on a busy machine may take its time.
ANSWER_S_MAX = 60


class AdminPort:
    """Loads, unloads and lists over HTTP, on a connection of its own for each."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.flags = ("--admin-port", str(port))

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, object]:
        """Send one request. Returns status and document."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S_MAX)) as connection:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def operate(self, operation: str, model: str, version: str | None = None) -> tuple[int, object]:
        """Load or unload. Returns status and document."""
        narrowed = "" if version is None else f"/versions/{version}"
        return self.ask("POST", f"/v2/repository/models/{model}{narrowed}/{operation}")

    def done(self, operation: str, model: str, version: str | None = None) -> None:
        """Load or unload, which must succeed."""
        assert self.operate(operation, model, version) == (200, {})

    def index(self) -> dict[str, tuple[str, str]]:
        """List states and reasons by NAME@VERSION."""
        _, entries = self.ask("POST", "/v2/repository/index")
        return {f"{entry['name']}@{entry['version']}": (entry["state"], entry["reason"]) for entry in entries}

    def states(self) -> dict[str, str]:
        """List states by NAME@VERSION."""
        return {name: state for name, (state, _) in self.index().items()}
