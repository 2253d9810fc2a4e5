"""One FastAPI process that does it all: features by redis-py, both models inside, no hop, and no log."""

import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, HTTPException
from redis.asyncio import Redis

from loadtests.baselines.predict_messages import PATH, PredictAnswer, PredictRequest
from loadtests.baselines.scorers import Scorer, lightgbm_scorer, onnx_scorer
from loadtests.baselines.serve import serve
from loadtests.baselines.user_features import read_rows
from loadtests.baselines.version_split import version_of
from settings import CommandLine
from settings.command_line import port_number


def make_application(redis_url: str, scorers: dict[str, Scorer]) -> FastAPI:
    """Make the application around the loaded versions."""
    redis = Redis.from_url(redis_url)

    @asynccontextmanager
    async def lifespan(_application: FastAPI) -> AsyncIterator[None]:
        # What start-up made lives for ever; without this, each full collection walks all of it.
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
        return PredictAnswer(predictions=scorers[version](rows), model="bench", version=version)

    return application


def main() -> int:
    """Serve until stopped."""
    line = CommandLine("fastapi-monolith", description=__doc__)
    line.option("--redis", required=True, metavar="URL", help="where features are")
    line.option("--onnx-file", required=True, type=Path, metavar="FILE", help="version 1")
    line.option("--lightgbm-file", required=True, type=Path, metavar="FILE", help="version 2")
    line.option("--port", required=True, type=port_number, help="port to listen on")
    given = line.parse_args()
    scorers = {"1": onnx_scorer(given.onnx_file), "2": lightgbm_scorer(given.lightgbm_file)}
    serve(make_application(given.redis, scorers), given.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
