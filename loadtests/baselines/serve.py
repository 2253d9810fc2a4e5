"""How every baseline is served: one process, uvloop, httptools, no access log."""

from typing import Any

import uvicorn


def serve(application: Any, port: int) -> None:
    """Serve an ASGI application on loopback until SIGTERM."""
    uvicorn.run(
        application, port=port, loop="uvloop", http="httptools", lifespan="auto", log_level="warning", access_log=False
    )
