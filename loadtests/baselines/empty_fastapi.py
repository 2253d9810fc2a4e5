"""An empty FastAPI route: a small pydantic body in, a small pydantic answer out, and nothing between."""

import sys

from fastapi import FastAPI

from loadtests.baselines.predict_messages import PATH, PredictAnswer, PredictRequest
from loadtests.baselines.serve import serve
from settings import CommandLine
from settings.command_line import port_number


def make_application() -> FastAPI:
    """Make the application."""
    application = FastAPI()

    @application.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @application.post(PATH)
    async def predict(request: PredictRequest) -> PredictAnswer:
        return PredictAnswer(predictions=[0.5] * len(request.instances), model="bench", version="1")

    return application


def main() -> int:
    """Serve until stopped."""
    line = CommandLine("empty-fastapi", description=__doc__)
    line.option("--port", required=True, type=port_number, help="port to listen on")
    serve(make_application(), line.parse_args().port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
