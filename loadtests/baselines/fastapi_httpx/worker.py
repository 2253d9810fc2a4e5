"""A model worker as FastAPI makes it: rows as JSON in, scores as JSON out."""

import sys
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


def make_application(score: Scorer) -> FastAPI:
    """Make the application around a loaded model."""
    application = FastAPI()

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
    given = line.parse_args()
    serve(make_application(load_scorer(given.model_file)), given.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
