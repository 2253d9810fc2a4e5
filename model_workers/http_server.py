"""One HTTP port: uvicorn with the limits of a worker, started and stopped by the worker and not by signals."""

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import uvicorn

from settings.http_protocol import BoundedHeadProtocol

KEEP_ALIVE_S: Final = 75
"""Longer than any client's: the side that closes an idle connection must be the one that would use it next."""

CONNECTIONS_MAX: Final = 4_096


class HttpServer(uvicorn.Server):
    """Serves one ASGI application. `finish_s_max`: how long connections may still take once it is told to exit."""

    def __init__(self, app: Any, *, finish_s_max: int) -> None:
        config = uvicorn.Config(
            app,
            http=BoundedHeadProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=finish_s_max,
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: uvicorn would exit at once and die of them; a worker first says that it is leaving."""
        yield
