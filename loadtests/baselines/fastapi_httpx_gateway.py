"""A gateway as FastAPI, redis-py and httpx make it: features, split, one call to the version's worker."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, HTTPException
from redis.asyncio import Redis

from loadtests.baselines.predict_messages import PATH, PredictAnswer, PredictRequest
from loadtests.baselines.serve import serve
from loadtests.baselines.user_features import read_rows
from loadtests.baselines.version_split import version_of
from settings import CommandLine
from settings.command_line import port_number

WORKER_TIMEOUT_S = 5.0
WORKER_CONNECTIONS_MAX = 128
"""Above the callers' number, so that no request waits for a connection."""


def make_application(redis_url: str, worker_urls: list[str]) -> FastAPI:
    """Make the application. Versions "1" and "2" are served by the workers in that order."""
    limits = httpx.Limits(max_connections=WORKER_CONNECTIONS_MAX, max_keepalive_connections=WORKER_CONNECTIONS_MAX)
    redis = Redis.from_url(redis_url)
    # A pool a worker: they are looked through one by one when a request takes its connection.
    workers = {
        str(i + 1): httpx.AsyncClient(base_url=url, limits=limits, timeout=WORKER_TIMEOUT_S)
        for i, url in enumerate(worker_urls)
    }

    @asynccontextmanager
    async def lifespan(_application: FastAPI) -> AsyncIterator[None]:
        yield
        for worker in workers.values():
            await worker.aclose()
        await redis.aclose()

    application = FastAPI(lifespan=lifespan)

    @application.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @application.post(PATH)
    async def predict(request: PredictRequest) -> PredictAnswer:
        users = request.users()
        version = version_of(request.unit or users[0])
        try:
            rows = await read_rows(redis, users)
        except KeyError as error:
            raise HTTPException(422, f"no features for {error}") from error
        answer = await workers[version].post("/score", json={"rows": rows})
        answer.raise_for_status()
        return PredictAnswer(predictions=answer.json()["scores"], model="bench", version=version)

    return application


def main() -> int:
    """Serve until stopped."""
    line = CommandLine("fastapi-gateway", description=__doc__)
    line.option("--redis", required=True, metavar="URL", help="where features are")
    line.option("--workers", required=True, nargs="+", metavar="URL", help="workers of versions 1, 2, ...")
    line.option("--port", required=True, type=port_number, help="port to listen on")
    given = line.parse_args()
    serve(make_application(given.redis, given.workers), given.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
