"""The admin port of a gateway of several processes: each answer is made of theirs."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from gateway.merged_metrics import MergedMetrics
from gateway.process_client import ProcessSilent, get


def supervisor_api(processes: Mapping[str, Path], metrics: MergedMetrics) -> FastAPI:
    """Build it. processes: name → Unix socket of each process that lives; it changes as they come and go."""
    app = FastAPI(
        title="Sekisho administration",
        summary="Several processes, one port",
        version="1",
        redoc_url=None,
        redirect_slashes=False,
    )

    async def ask_all(target: str) -> dict[str, tuple[int, bytes]]:
        names = list(processes)
        answers = await asyncio.gather(*(get(processes[name], target) for name in names), return_exceptions=True)
        found: dict[str, tuple[int, bytes]] = {}
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, ProcessSilent):
                found[name] = (503, json.dumps({"status": str(answer)}).encode())
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found[name] = answer
        return found

    @app.get("/healthz", summary="The supervisor lives")
    async def healthz() -> dict[str, Any]:
        return {"status": "ok", "detail": {}}

    @app.get("/readyz", summary="Every process can answer")
    async def readyz() -> Response:
        answers = await ask_all("/readyz")
        ready = bool(answers) and all(status == 200 for status, _ in answers.values())
        detail = {name: json.loads(body) for name, (_, body) in answers.items()}
        content = {"status": "ok" if ready else "not ready", "detail": detail}
        return JSONResponse(content, 200 if ready else 503)

    @app.get("/metrics", summary="Prometheus metrics of all processes", response_class=Response)
    async def metrics_page() -> Response:
        for name, (status, body) in (await ask_all("/metrics")).items():
            if status == 200:
                metrics.read(name, body.decode())
        return Response(metrics.page(), headers={"content-type": CONTENT_TYPE_LATEST})

    @app.get("/admin/v1/status", summary="Each process's status")
    async def status() -> dict[str, Any]:
        answers = await ask_all("/admin/v1/status")
        return {"processes": {name: json.loads(body) for name, (_, body) in answers.items()}}

    @app.get("/admin/v1/{rest:path}", summary="What every process answers alike: the first one's answer")
    async def first(rest: str, request: Request) -> Response:
        query = f"?{request.url.query}" if request.url.query else ""
        for socket_path in list(processes.values()):
            try:
                code, body = await get(socket_path, f"/admin/v1/{rest}{query}")
            except ProcessSilent:
                continue
            kind = "application/json" if code < 400 else "application/problem+json"
            return Response(body, code, media_type=kind)
        return JSONResponse({"status": "no process answers"}, 503)

    return app
