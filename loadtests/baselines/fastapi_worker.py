"""A model worker as FastAPI makes it: rows as JSON in, scores as JSON out."""

import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from pydantic import BaseModel

from loadtests.baselines.scorers import Scorer, load_scorer
from loadtests.baselines.serve import serve
from settings import CommandLine
from settings.command_line import port_number


class ScoreRequest(BaseModel):
    """Rows of features."""

    rows: list[list[float]]


class ScoreAnswer(BaseModel):
    """A score for each row."""

    scores: list[float]


def make_application(score: Scorer, *, freeze: bool) -> FastAPI:
    """Make the application around a loaded model. freeze: the collector, once everything is loaded."""

    @asynccontextmanager
    async def lifespan(_application: FastAPI) -> AsyncIterator[None]:
        if freeze:
            gc.collect()
            gc.freeze()
        yield

    application = FastAPI(lifespan=lifespan)

    @application.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @application.post("/score")
    async def score_rows(request: ScoreRequest) -> ScoreAnswer:
        # On the event loop: a row takes microseconds, and a hop to a thread takes longer.
        return ScoreAnswer(scores=score(request.rows))

    return application


def main() -> int:
    """Serve until stopped."""
    line = CommandLine("fastapi-worker", description=__doc__)
    line.option("--model-file", required=True, type=Path, metavar="FILE", help="model.onnx or model.txt")
    line.option("--port", required=True, type=port_number, help="port to listen on")
    line.option("--freeze", action="store_true", help="freeze the garbage collector's view of what start-up made")
    given = line.parse_args()
    serve(make_application(load_scorer(given.model_file), freeze=given.freeze), given.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
