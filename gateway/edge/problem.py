"""Errors → RFC 9457 problem documents. The one table from error types to statuses."""

from collections.abc import Mapping
from math import ceil
from typing import Any, Final

import msgspec

from gateway import errors
from http_server.exchange import head_of

STATUS_BY_ERROR: Final[dict[type[errors.GatewayError], int]] = {
    errors.MalformedRequest: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.UnknownPath: 404,
    errors.UnknownModel: 404,
    errors.UnknownVersion: 404,
    errors.UnknownExperiment: 404,
    errors.NoResults: 404,
    errors.MethodNotAllowed: 405,
    errors.TooSlow: 408,
    errors.VersionInUse: 409,
    errors.VersionNotReady: 409,
    errors.ExperimentsFromFiles: 409,
    errors.PreconditionFailed: 412,
    errors.BodyTooLarge: 413,
    errors.TooManyInstances: 413,
    errors.UnsupportedMediaType: 415,
    errors.InvalidRequest: 422,
    errors.UnknownEntity: 422,
    errors.MissingEntity: 422,
    errors.UnknownFeature: 422,
    errors.MissingFeature: 422,
    errors.WrongFeatureType: 422,
    errors.MissingUnit: 422,
    errors.UnknownVariant: 422,
    errors.FeaturesMissing: 422,
    errors.ForcedVariantRefused: 403,
    errors.PreconditionRequired: 428,
    errors.RateLimited: 429,
    errors.Overloaded: 503,
    errors.ModelNotReady: 503,
    errors.FeaturesUnavailable: 503,
    errors.WorkerUnavailable: 503,
    errors.WorkerRefused: 503,
    errors.OutcomesNotAccepted: 503,
    errors.ChangeNotKept: 503,
    errors.ExperimentsUnavailable: 503,
    errors.DeadlineExceeded: 504,
}

TITLE_BY_STATUS: Final = {
    400: "The request cannot be read",
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "The request did not arrive in time",
    409: "Not while it is as it is",
    412: "It has changed meanwhile",
    413: "The request is too large",
    415: "Unsupported media type",
    422: "The request cannot be answered as it stands",
    428: "The request must say what it changes",
    429: "Too many requests",
    431: "The request's head is too large",
    500: "Internal error",
    503: "Not available just now",
    504: "Out of time",
}

RETRY_AFTER_S: Final = 1
"""What a 503 says in `retry-after`: long enough for a worker to reconnect, short enough to be obeyed."""

CONTENT_TYPE: Final = b"application/problem+json"

ERROR_BY_STATUS: Final[dict[int, type[errors.GatewayError]]] = {
    400: errors.MalformedRequest,
    408: errors.TooSlow,
    413: errors.BodyTooLarge,
    431: errors.MalformedRequest,
    503: errors.Overloaded,
}
"""What the server refuses before there is a request."""

Headers = list[tuple[bytes, bytes]]

_encode = msgspec.json.Encoder().encode


def status_of(error: errors.GatewayError) -> int:
    """Return the HTTP status of an error."""
    return STATUS_BY_ERROR[type(error)]


def problem(error: errors.GatewayError, request_id: str) -> tuple[int, Headers, bytes]:
    """Return status, headers and body of an error's answer."""
    status = status_of(error)
    headers: Headers = []
    if status == 503:
        headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))
    if isinstance(error, errors.MethodNotAllowed):
        headers.append((b"allow", error.allowed.encode()))
    if isinstance(error, errors.Unauthenticated):
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, errors.RateLimited):
        # Whole seconds, as RFC 9110 has it, and never fewer than there are to wait.
        headers.append((b"retry-after", b"%d" % max(1, ceil(error.wait_s))))
    body = document(status, error.code, error.detail, request_id, error.field, error.facts)
    return status, headers, body


def refusal(status: int, detail: str, request_id: str) -> tuple[bytes, bytes]:
    """Return header lines and body of the answer to what never became a request."""
    body = document(status, ERROR_BY_STATUS[status].code, detail, request_id)
    return head_lines(request_id, CONTENT_TYPE, refusal_headers(status)), body


def refusal_headers(status: int) -> Headers | None:
    """Return what such an answer says beside type and request id."""
    return [(b"retry-after", b"%d" % RETRY_AFTER_S)] if status == 503 else None


def fault(request_id: str) -> tuple[bytes, bytes]:
    """Return header lines and body of the answer to what nobody foresaw."""
    body = document(500, "internal_error", "the gateway failed; its log says why", request_id)
    return head_lines(request_id, CONTENT_TYPE), body


def head_lines(request_id: str, content_type: bytes, more: Headers | None = None) -> bytes:
    """Write an answer's header lines."""
    lines = b"content-type: %b\r\nx-request-id: %b\r\n" % (content_type, request_id.encode())
    return lines + head_of(more) if more else lines


def document(
    status: int,
    code: str,
    detail: str,
    request_id: str,
    field: str | None = None,
    facts: Mapping[str, Any] | None = None,
) -> bytes:
    """Encode a problem document; `code` is stable, `detail` is for people, `facts` are further members."""
    content: dict[str, Any] = {
        "type": f"urn:sekisho:problem:{code}",
        "title": TITLE_BY_STATUS[status],
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": request_id,
    }
    if field is not None:
        content["field"] = field
    if facts:
        content.update(facts)
    return _encode(content)
