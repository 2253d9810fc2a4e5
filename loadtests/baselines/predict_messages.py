"""The request and answer of the FastAPI baselines, as pydantic models."""

from pydantic import BaseModel

PATH = "/v1/models/bench:predict"


class Instance(BaseModel):
    """What one prediction is about."""

    entities: dict[str, str]


class PredictRequest(BaseModel):
    """A request. `unit` is what versions are split by; left out, it is the first instance's user."""

    instances: list[Instance]
    unit: str | None = None

    def users(self) -> list[str]:
        """The user of each instance."""
        return [instance.entities["user"] for instance in self.instances]


class PredictAnswer(BaseModel):
    """An answer."""

    predictions: list[float]
    model: str
    version: str
