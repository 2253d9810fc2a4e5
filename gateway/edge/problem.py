"""Errors → RFC 9457 problem documents. The one table from error types to statuses."""

from typing import Any, Final

import msgspec

from gateway import errors
from http_server.exchange import head_of

STATUS_BY_ERROR: Final[dict[type[errors.GatewayError], int]] = {
    errors.MalformedRequest: 400,
    errors.UnknownPath: 404,
    errors.UnknownModel: 404,
    errors.MethodNotAllowed: 405,
    errors.TooSlow: 408,
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
    errors.Overloaded: 503,
    errors.ModelNotReady: 503,
    errors.FeaturesUnavailable: 503,
    errors.WorkerUnavailable: 503,
    errors.WorkerRefused: 503,
    errors.OutcomesNotAccepted: 503,
    errors.DeadlineExceeded: 504,
}

TITLE_BY_STATUS: Final = {
    400: "The request cannot be read",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "The request did not arrive in time",
    413: "The request is too large",
    415: "Unsupported media type",
    422: "The request cannot be answered as it stands",
    431: "The request's head is too large",
    500: "Internal error",
    503: "Not available just now",
    504: "Out of time",
}

RETRY_AFTER_S: Final = 1
"""What a 503 says in `retry-after`: long enough for a worker to reconnect, short enough to be obeyed."""

CONTENT_TYPE: Final = b"application/problem+json"

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
    return status, headers, document(status, error.code, error.detail, request_id, error.field)


def head_lines(request_id: str, content_type: bytes, more: Headers | None = None) -> bytes:
    """Write an answer's header lines."""
    lines = b"content-type: %b\r\nx-request-id: %b\r\n" % (content_type, request_id.encode())
    return lines + head_of(more) if more else lines


def document(status: int, code: str, detail: str, request_id: str, field: str | None = None) -> bytes:
    """Encode a problem document; `code` is stable, `detail` is for people."""
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
    return _encode(content)
