"""The yardstick: uvicorn, and an application that reads the request and answers a constant of the product's size."""

import sys
from typing import Any

from loadtests.baselines.serve import serve
from settings import CommandLine
from settings.command_line import port_number

_BODY = (
    b'{"predictions":[0.12345678901234567],"model":"bench","version":"1","variant":"control","experiment":"bench-split",'
    b'"prediction_id":"019a0000-0000-7000-8000-000000000000","degraded":[]}'
)
_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_BODY)).encode()),
    (b"x-request-id", b"019a0000-0000-7000-8000-000000000000"),
    (b"server-timing", b"features;dur=0.123, queue;dur=0.123, infer;dur=0.123, total;dur=0.456"),
]


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer every request alike."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


def main() -> int:
    """Serve until stopped."""
    line = CommandLine("bare-uvicorn", description=__doc__)
    line.option("--port", required=True, type=port_number, help="port to listen on")
    serve(application, line.parse_args().port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
