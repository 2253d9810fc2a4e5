"""The gateway of `fastapi_httpx_gateway.py` with aiohttp as its client and a frozen collector.

No faster one of that shape was found.
"""

import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
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
    redis = Redis.from_url(redis_url)
    url_by_version = {str(i + 1): f"{url}/score" for i, url in enumerate(worker_urls)}
    session: aiohttp.ClientSession

    @asynccontextmanager
    async def lifespan(_application: FastAPI) -> AsyncIterator[None]:
        nonlocal session
        connector = aiohttp.TCPConnector(limit=WORKER_CONNECTIONS_MAX)
        timeout = aiohttp.ClientTimeout(total=WORKER_TIMEOUT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            gc.collect()
            gc.freeze()
            yield
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
        async with session.post(url_by_version[version], json={"rows": rows}) as answer:
            answer.raise_for_status()
            scores = (await answer.json())["scores"]
        return PredictAnswer(predictions=scores, model="bench", version=version)

    return application


def main() -> int:
    """Serve until stopped."""
    line = CommandLine("fastapi-aiohttp-gateway", description=__doc__)
    line.option("--redis", required=True, metavar="URL", help="where features are")
    line.option("--workers", required=True, nargs="+", metavar="URL", help="workers of versions 1, 2, ...")
    line.option("--port", required=True, type=port_number, help="port to listen on")
    given = line.parse_args()
    serve(make_application(given.redis, given.workers), given.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
