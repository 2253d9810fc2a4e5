"""HTTP header names, as bytes in lower case, the form in which ASGI carries them."""

INFERENCE_HEADER_CONTENT_LENGTH = b"inference-header-content-length"
"""Length of the JSON part of a binary inference body. Source: OIP v2 binary tensor data extension."""

REQUEST_ID = b"x-request-id"
REQUEST_TIMEOUT_MS = b"x-request-timeout-ms"
PRIORITY = b"x-priority"
FORCED_VARIANT = b"x-sekisho-variant"
TRACEPARENT = b"traceparent"
"""Source: W3C Trace Context."""

SERVER_TIMING = b"server-timing"
"""Source: W3C Server Timing; durations in ms."""
