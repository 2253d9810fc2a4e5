"""The lock of the admin port: one ASGI layer before everything that is served there."""

from collections.abc import Callable
from typing import Any, Final

from gateway.access.gate import AccessGate
from gateway.access.keys_file import Scope
from gateway.edge import problem
from gateway.edge.http_exchange import request_id_of
from gateway.errors import GatewayError
from http_server.asgi import AsgiApplication

ACTOR: Final = b"x-sekisho-actor"
"""Who makes a change. Where there are keys, it is the key that says so."""

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""For probes and scrapers, which have no keys. They say how the gateway is, and nothing that a caller sent."""

EXPERIMENTS: Final = ("/admin/v1/experiments", "/admin/v1/explain", "/admin/v1/audit", "/admin/v1/kill-switch")
"""What an experimenter's key opens, with everything below."""

_ADMIN: Final = (Scope.ADMIN,)
_EXPERIMENT: Final = (Scope.EXPERIMENT, Scope.ADMIN)


def guarded(application: AsgiApplication, gate: AccessGate | None, new_id: Callable[[], str]) -> AsgiApplication:
    """Ask for a key before `application` is asked. gate: None where there are no keys, and everything is open.

    The name of the key is `request.state.actor`, and takes the place of whatever the request calls its actor.
    """
    if gate is None:
        return application

    async def guard(scope: dict[str, Any], receive: Any, send: Any) -> None:
        path = scope["path"]
        if path in OPEN_PATHS:
            await application(scope, receive, send)
            return
        headers = dict(scope["headers"])
        try:
            key = gate.admit(headers, scopes_of(path))
        except GatewayError as error:
            await _refuse(error, request_id_of(headers, new_id), send)
            return
        others = [header for header in scope["headers"] if header[0] != ACTOR]
        state = {**scope.get("state", {}), "actor": key.name}
        await application({**scope, "headers": [*others, (ACTOR, key.name.encode())], "state": state}, receive, send)

    return guard


def scopes_of(path: str) -> tuple[Scope, ...]:
    """Return the scopes of which one is enough for a path of the admin port."""
    is_experimenters = any(path == opened or path.startswith(opened + "/") for opened in EXPERIMENTS)
    return _EXPERIMENT if is_experimenters else _ADMIN


async def _refuse(error: GatewayError, request_id: str, send: Any) -> None:
    status, more, body = problem.problem(error, request_id)
    headers = [(b"content-type", problem.CONTENT_TYPE), (b"x-request-id", request_id.encode()), *more]
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
