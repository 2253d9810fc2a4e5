"""What changes on the admin port have in common: who makes them and why, what they are made of, how refusals look."""

import re
from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response

from gateway.edge import problem
from gateway.edge.http_exchange import check_json, request_id_of
from gateway.errors import GatewayError, InvalidRequest

ACTOR: Final = "x-sekisho-actor"
REASON: Final = "x-sekisho-reason"
HEADER_CHARACTERS_MAX: Final = 256
"""Of an actor or a reason: a line of the audit log."""

DRY_RUN: Final = Query(default=False, description="Say what would be answered, and change nothing.")
PROBLEM_TYPE: Final = problem.CONTENT_TYPE.decode()

_TEXT: Final = {"type": "string", "minLength": 1, "maxLength": HEADER_CHARACTERS_MAX}
WHO_AND_WHY: Final[list[dict[str, Any]]] = [
    {"name": name, "in": "header", "required": True, "schema": _TEXT} for name in (ACTOR, REASON)
]
"""As an OpenAPI document describes the two headers."""

_ETAG: Final = re.compile(r'(?:W/)?"([1-9]\d{0,17})"\Z')
"""Revisions begin with 1: 0 stands for an experiment that is not there yet, and only `If-None-Match` asks for that."""


def refuse_with_problems(app: FastAPI, new_id: Callable[[], str]) -> None:
    """Answer every GatewayError with its problem document."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, GatewayError)
        status, headers, body = problem.problem(error, request_id_of(dict(request.scope["headers"]), new_id))
        named = {name.decode(): value.decode() for name, value in headers}
        return Response(body, status, named, media_type=PROBLEM_TYPE)

    app.add_exception_handler(GatewayError, refused)


def who_and_why(request: Request) -> tuple[str, str]:
    """Return actor and reason. The actor is the credential's, where there is one. Raises InvalidRequest."""
    actor = getattr(request.state, "actor", None) or _text_of(request, ACTOR)
    return _checked(ACTOR, str(actor)), _checked(REASON, _text_of(request, REASON))


async def json_body(request: Request) -> bytes:
    """Return a body that is said to be JSON; the port bounds it. Raises UnsupportedMediaType."""
    check_json(dict(request.scope["headers"]))
    return await request.body()


def expected_revision(request: Request) -> int | None:
    """Return the revision that the caller read: of `If-Match`; 0 for `If-None-Match: *`; None where it names none.

    Raises InvalidRequest for a header that is neither.
    """
    match, none_match = request.headers.get("if-match"), request.headers.get("if-none-match")
    if match is not None and none_match is not None:
        raise InvalidRequest("send `If-Match` or `If-None-Match`, not both", "if-match")
    if none_match is not None:
        if none_match.strip() != "*":
            raise InvalidRequest("only `If-None-Match: *` means something here: there is none yet", "if-none-match")
        return 0
    if match is None:
        return None
    found = _ETAG.match(match.strip())
    if found is None:
        raise InvalidRequest('give one ETag as it was answered, like `If-Match: "7"`', "if-match")
    return int(found[1])


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe refusals for an OpenAPI document."""
    return {
        status: {"description": problem.TITLE_BY_STATUS.get(status, ""), "content": {PROBLEM_TYPE: {}}}
        for status in statuses
    }


def described(body: dict[str, Any] | None, *, conditional: bool = False) -> dict[str, Any]:
    """Describe a change for an OpenAPI document. body: its JSON schema; conditional: by an ETag."""
    parameters = list(WHO_AND_WHY)
    if conditional:
        etag = {"type": "string"}
        parameters += [{"name": name, "in": "header", "schema": etag} for name in ("if-match", "if-none-match")]
    if body is None:
        return {"parameters": parameters}
    return {
        "parameters": parameters,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
    }


def _text_of(request: Request, name: str) -> str:
    # A reason is people's own words: UTF-8, where a header's are Latin-1 by its standard.
    value = request.headers.get(name, "").encode("latin-1")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("it is not UTF-8", name) from None


def _checked(name: str, value: str) -> str:
    if not 1 <= len(value) <= HEADER_CHARACTERS_MAX or not value.isprintable():
        raise InvalidRequest(f"a change needs this header: 1 to {HEADER_CHARACTERS_MAX} printable characters", name)
    return value
