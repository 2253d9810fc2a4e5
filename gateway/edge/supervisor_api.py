"""The admin port of a gateway of several processes: each answer is made of theirs."""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from gateway.merged_metrics import MergedMetrics
from gateway.process_client import CHANGE_TIMEOUT_S, TIMEOUT_S, ProcessSilent, ask, ask_whole

PASSED_ON: Final = frozenset(
    {b"content-type", b"x-sekisho-actor", b"x-sekisho-reason", b"x-request-id", b"if-match", b"if-none-match"}
)
"""Headers of a change that its processes are told. Who makes it has been looked at here."""

PASSED_BACK: Final = (b"content-type", b"etag", b"retry-after")

OF_ALL_GATEWAYS: Final = ("/admin/v1/experiments/", "/admin/v1/kill-switch")
"""What is changed there lies in a store that all processes follow: one of them makes the change."""

Headers = Sequence[tuple[bytes, bytes]]
Answer = tuple[int, bytes]
"""Status and body."""


def supervisor_api(processes: Mapping[str, Path], metrics: MergedMetrics) -> FastAPI:
    """Build it. processes: name → Unix socket of each process that lives; it changes as they come and go."""
    # One change after the other: two that crossed would leave the processes with different ones in force.
    changing = asyncio.Lock()
    app = FastAPI(
        title="Sekisho administration",
        summary="Several processes, one port",
        version="1",
        redoc_url=None,
        redirect_slashes=False,
    )

    async def ask_each(
        target: str, method: str = "GET", headers: Headers = (), body: bytes = b""
    ) -> dict[str, Answer | ProcessSilent]:
        timeout_s = TIMEOUT_S if method == "GET" else CHANGE_TIMEOUT_S

        async def ask_one(socket_path: Path) -> Answer | ProcessSilent:
            try:
                return await ask(socket_path, method, target, headers, body, timeout_s)
            except ProcessSilent as silence:
                return silence

        names = list(processes)
        answers = await asyncio.gather(*(ask_one(processes[name]) for name in names))
        return dict(zip(names, answers, strict=True))

    async def ask_all(target: str) -> dict[str, Answer]:
        answers = await ask_each(target)
        return {
            name: (503, json.dumps({"status": str(answer)}).encode()) if isinstance(answer, ProcessSilent) else answer
            for name, answer in answers.items()
        }

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
    async def first(rest: str, request: Request) -> Response:  # noqa: ARG001 - the path is passed on as it came
        return await ask_one_of_them(request, TIMEOUT_S)

    async def ask_one_of_them(request: Request, timeout_s: float) -> Response:
        headers = [header for header in request.scope["headers"] if header[0] in PASSED_ON]
        body = await request.body()
        for socket_path in list(processes.values()):
            try:
                status, fields, content = await ask_whole(
                    socket_path, request.method, _target(request), headers, body, timeout_s
                )
            except ProcessSilent:
                if request.method != "GET":
                    break  # it may have been done: whoever asked is told that nobody knows
                continue
            return Response(content, status, {n.decode(): fields[n].decode() for n in PASSED_BACK if n in fields})
        return _nobody()

    @app.api_route(
        "/admin/v1/{rest:path}", methods=["PUT", "DELETE"], summary="A change of every process, or the first refusal"
    )
    async def change(rest: str, request: Request) -> Response:  # noqa: ARG001 - as above
        if _target(request).startswith(OF_ALL_GATEWAYS):
            return await ask_one_of_them(request, CHANGE_TIMEOUT_S)
        headers = [header for header in request.scope["headers"] if header[0] in PASSED_ON]
        asked = (request.method, headers, await request.body())
        target = _target(request)
        dry = f"{target}{'&' if '?' in target else '?'}dry_run=true"
        async with changing:
            # Asked first what each would say: where one refuses, none has changed.
            answer = _one_of((await ask_each(dry, *asked)).values())
            if answer is not None and answer[0] < 400 and not _is_dry(request):
                answer = _one_of((await ask_each(target, *asked)).values())
        return _nobody() if answer is None else _passed_on(answer)

    return app


def _target(request: Request) -> str:
    # As it came, still encoded: what it decodes to might hold a line of its own.
    query = f"?{request.url.query}" if request.url.query else ""
    return str(request.scope["raw_path"].decode("latin-1")) + query


def _is_dry(request: Request) -> bool:
    return request.query_params.get("dry_run", "false").lower() not in ("false", "0", "off", "no", "f", "n")


def _one_of(answers: Iterable[Answer | ProcessSilent]) -> Answer | None:
    """Choose the answer to a change: the first refusal, else that of a process that is not ready, else any.

    A process that is silent is only just starting, or ending: what was changed it reads from the state directory.
    """
    told = [answer for answer in answers if not isinstance(answer, ProcessSilent)]
    refused = [answer for answer in told if answer[0] >= 400]
    unready = [answer for answer in told if answer[0] < 400 and not json.loads(answer[1]).get("ready", True)]
    return next(iter(refused or unready or told), None)


def _passed_on(answer: Answer) -> Response:
    status, body = answer
    return Response(body, status, media_type="application/json" if status < 400 else "application/problem+json")


def _nobody() -> Response:
    return JSONResponse({"status": "no process answers"}, 503)
