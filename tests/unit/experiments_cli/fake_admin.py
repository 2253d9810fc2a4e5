"""The admin API for experiments over a real socket, with a register in memory in place of Redis."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from experiments import ExperimentError
from experiments.register import Change, Entry, Register, delete, kill, put
from experiments_cli.explain import explained

START = datetime(2026, 10, 31, 9, 0, tzinfo=UTC)
VERSIONS = ("1", "2", "3")


class Refusal(Exception):
    """A problem document."""

    def __init__(self, status: int, code: str, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.body = {"type": f"urn:sekisho:problem:{code}", "status": status, "code": code, "detail": detail, **more}


@dataclass
class FakeAdmin:
    """What a gateway knows. Set its fields to make it another one."""

    register: Register = field(default_factory=Register)
    trail: list[dict[str, Any]] = field(default_factory=list)
    now: datetime = START
    keys: dict[str, tuple[str, set[str]]] = field(default_factory=dict)
    from_files: bool = False
    unavailable: bool = False
    guardrails: dict[str, dict[str, Any]] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    acknowledged: Callable[[int], dict[str, int]] = lambda revision: {"gateway-a": revision, "gateway-b": revision}
    processes: int = 1
    before_write: Callable[[], None] | None = None
    page_max: int = 1_000
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def put(self, document: Mapping[str, Any], actor: str = "ana", reason: str = "because") -> None:
        """Write a document as somebody else would."""
        self._keep(put(self.register, document, 0), document["experiment"], actor, reason, "put")

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], Any]:
        """Answer one request with status, headers and JSON."""
        parts = urlsplit(target)
        self.requests.append((method, target, headers))
        query = {name: values[-1] for name, values in parse_qs(parts.path and parts.query).items()}
        path = [unquote(part) for part in parts.path.removeprefix("/admin/v1").strip("/").split("/")]
        try:
            self._admit(path, headers)
            self._look_whether_the_store_answers(path)
            if method == "GET":
                return 200, {}, self._read(path, query)
            return 200, {}, self._written(method, path, query, headers, body)
        except Refusal as refusal:
            more = {"retry-after": "1"} if refusal.status == 503 else {}
            return refusal.status, more, refusal.body

    def _look_whether_the_store_answers(self, path: list[str]) -> None:
        if self.unavailable and path != ["status"]:
            raise Refusal(503, "experiments_unavailable", "Redis does not answer")

    def _admit(self, path: list[str], headers: dict[str, str]) -> None:
        if not self.keys:
            return
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if not given:
            raise Refusal(401, "unauthenticated", "this needs an API key", field="authorization")
        if given not in self.keys:
            raise Refusal(401, "unauthenticated", "the key is not known here, or no longer", field="authorization")
        name, scopes = self.keys[given]
        needed = {"admin"} if path == ["status"] else {"experiment", "admin"}
        if not needed & scopes:
            may = f"key {name!r} may not do this: it needs the scope {' or '.join(sorted(needed))}"
            raise Refusal(403, "forbidden", may)
        headers["x-sekisho-actor"] = name

    def _read(self, path: list[str], query: dict[str, str]) -> Any:
        found: Any
        match path:
            case ["experiments"]:
                found = {name: told(entry) for name, entry in self.register.entries.items()}
            case ["experiments", name]:
                found = told(self._find(name))
            case ["experiments", name, "guardrails"]:
                found = {"experiment": name, "arms": {}, "findings": [], **self.guardrails.get(name, {})}
            case ["explain"]:
                found = self._explained(query)
            case ["kill-switch"]:
                found = {"revision": self.register.revision, "killed": sorted(self.register.killed), "warnings": []}
            case ["audit"]:
                found = self._audit(query)
            case ["status"]:
                found = self._status()
            case _:
                raise Refusal(404, "unknown_path", "Not Found")
        return found

    def _status(self) -> Any:
        heard = {
            name: {"revision": revision, "age_s": 0.5}
            for name, revision in self.acknowledged(self.register.revision).items()
        }
        page = {"experiments": {"source": "store", "revision": 1, "killed": [], "acknowledged": heard}}
        return page if self.processes == 1 else {"processes": {str(i): page for i in range(self.processes)}}

    def _written(
        self, method: str, path: list[str], query: dict[str, str], headers: dict[str, str], body: bytes
    ) -> Any:
        if self.from_files:
            raise Refusal(409, "experiments_from_files", "this gateway reads its experiments from files")
        actor, reason = (headers.get(f"x-sekisho-{name}", "") for name in ("actor", "reason"))
        if not actor or not reason:
            raise Refusal(422, "invalid_request", "a change needs this header", field="x-sekisho-actor")
        dry_run = query.get("dry_run") == "true"
        if self.before_write is not None and not dry_run:
            meanwhile, self.before_write = self.before_write, None
            meanwhile()
        document = json.loads(body) if body else {}
        try:
            if path == ["kill-switch"]:
                return self._switched(document, actor, reason, dry_run=dry_run)
            if path[2:] == ["results"]:
                self.results[self._find(path[1]).experiment.name] = document
                return {"published_at": self.now.isoformat(), "actor": actor, "results": document}
            self._match(path[1], headers)
            change = delete(self.register, path[1]) if method == "DELETE" else put(self.register, document, 0)
            _refuse_unrouted(change)
        except ExperimentError as error:
            raise Refusal(422, "invalid_request", error.problem, field=error.key) from None
        if not dry_run:
            self._keep(change, path[1], actor, reason, method.lower())
        return {
            "revision": change.entry.experiment.revision if change.entry else change.register.revision,
            "epoch": change.entry.experiment.epoch if change.entry else None,
            "units_moved_bp": change.units_moved_bp,
            "warnings": list(change.warnings),
            "document": change.entry.experiment.document if change.entry else None,
        }

    def _switched(self, wanted: dict[str, Any], actor: str, reason: str, *, dry_run: bool) -> Any:
        change = kill(self.register, wanted["model"], on=wanted["on"])
        if not dry_run:
            self._keep(change, None, actor, reason, "kill" if wanted["on"] else "unkill")
        killed = sorted(change.register.killed)
        return {"revision": change.register.revision, "killed": killed, "warnings": list(change.warnings)}

    def _find(self, name: str) -> Entry:
        if name not in self.register.entries:
            raise Refusal(404, "unknown_experiment", f"there is no experiment {name!r}")
        return self.register.entries[name]

    def _match(self, name: str, headers: dict[str, str]) -> None:
        entry = self.register.entries.get(name)
        expected = "*" if entry is None else f'"{entry.experiment.revision}"'
        if headers.get("if-none-match" if entry is None else "if-match") != expected:
            if "if-match" not in headers and "if-none-match" not in headers:
                raise Refusal(428, "precondition_required", "send If-Match")
            current = told(entry) if entry is not None else None
            raise Refusal(412, "precondition_failed", "it has changed", current=current)

    def _keep(self, change: Change, name: str | None, actor: str, reason: str, action: str) -> None:
        before = self.register.entries.get(name or "")
        self.register = change.register
        self.now += timedelta(minutes=1)
        self.trail.append(
            {
                "id": f"{len(self.trail) + 1}-0",
                "at": self.now.isoformat(),
                "actor": actor,
                "reason": reason,
                "action": action,
                "experiment": name,
                "revision": change.register.revision,
                "epoch": change.entry.experiment.epoch if change.entry else None,
                "units_moved_bp": change.units_moved_bp,
                "before": before.experiment.document if before else None,
                "after": change.entry.experiment.document if change.entry else None,
            }
        )

    def _audit(self, query: dict[str, str]) -> Any:
        wanted = query.get("experiment")
        entries = [e for e in reversed(self.trail) if wanted in (None, e["experiment"])]
        if "before" in query:
            entries = entries[[e["id"] for e in entries].index(query["before"]) + 1 :]
        page = entries[: min(self.page_max, int(query.get("limit", "100")))]
        return {"entries": page, "next": page[-1]["id"] if len(page) < len(entries) else None}

    def _explained(self, query: dict[str, str]) -> Any:
        found = explained(
            [entry.experiment for entry in self.register.entries.values()],
            query["unit"],
            model=query.get("model"),
            attributes=json.loads(query.get("attributes", "{}")),
        )
        return json.loads(json.dumps(found, default=lambda s: {f: getattr(s, f) for f in s.__struct_fields__}))


def _refuse_unrouted(change: Change) -> None:
    for index, variant in enumerate(change.entry.experiment.variants if change.entry else ()):
        if variant.version not in VERSIONS:
            raise ExperimentError(f"variants[{index}].version", f"{variant.version!r} is not routed")


def told(entry: Entry) -> dict[str, Any]:
    """An experiment as a GET answers it."""
    e = entry.experiment
    return {"revision": e.revision, "epoch": e.epoch, "units_moved_bp": 0, "warnings": [], "document": e.document}


@contextmanager
def serving(admin: FakeAdmin, tls: ssl.SSLContext | None = None) -> Iterator[FakeAdmin]:
    """Serve it on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, more, content = admin.answer(self.command, self.path, headers, body)
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json" if status < 400 else "application/problem+json")
            self.send_header("content-length", str(len(data)))
            for name, value in more.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_DELETE = answer  # noqa: N815 - the names of the standard library

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    admin.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    try:
        yield admin
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
