"""Locust scenario: callers of the demo's model, who predict, rank, and tell what came of it.

Run `make demo` in one terminal and `make load` in another; or `locust -f loadtests/locustfile.py` for the web page.
Every answer is checked; one that is wrong counts as a failure, and failures make the exit code 1.
"""

import random
import sys
from collections import deque
from typing import Any

import requests
from locust import FastHttpUser, constant_pacing, events, task
from locust.env import Environment

MODEL = "diagnosis"
ENTITY = "patient"
PATIENTS = 569
BATCH_INSTANCES = 100
OUTCOMES_KEPT_MAX = 100
"""Predictions that one user remembers, to report their outcomes."""

REACHABLE_TIMEOUT_S = 5.0
PACE_S = 0.02

PREDICT = f"/v1/models/{MODEL}:predict"
OUTCOMES = "/v1/outcomes"


def require_demo(environment: Environment, **_rest: object) -> None:
    """End before anything is started where the demo does not answer, and say how to start it."""
    host = environment.host or Caller.host
    problem = _demo_problem(host)
    if problem is not None:
        print(f"locust: {host}: {problem}\nStart the demo first, in another terminal: make demo", file=sys.stderr)
        sys.exit(2)


def _demo_problem(host: str) -> str | None:
    try:
        answer = requests.post(host + PREDICT, json={"entities": {ENTITY: "p0"}}, timeout=REACHABLE_TIMEOUT_S)
    except requests.RequestException as error:
        return f"no answer ({type(error).__name__})"
    return None if answer.status_code == 200 else f"model {MODEL!r} answered {answer.status_code}: {answer.text[:200]}"


events.init.add_listener(require_demo)  # type: ignore[no-untyped-call]  # locust's own is not annotated


def answer_problem(answer: Any, instances: int) -> str | None:
    """Say what is wrong with a decoded prediction answer; None where it is right."""
    predictions = answer.get("predictions") if isinstance(answer, dict) else None
    if not isinstance(predictions, list) or not isinstance(answer.get("prediction_id"), str):
        return f"not a prediction: {answer!r}"[:200]
    if len(predictions) != instances:
        return f"{len(predictions)} predictions for {instances} instances"
    wrong = [each for each in predictions if not isinstance(each, float | int) or not 0 <= each <= 1]
    if wrong:
        return f"not a probability: {wrong[0]!r}"
    if answer.get("degraded"):
        return f"degraded: {', '.join(answer['degraded'])}"
    return None


class Caller(FastHttpUser):
    """A product backend: mostly single predictions, some rankings, and outcomes of what it predicted."""

    host = "http://127.0.0.1:8080"
    wait_time = constant_pacing(PACE_S)

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._predicted: deque[str] = deque(maxlen=OUTCOMES_KEPT_MAX)

    @task(10)
    def predict(self) -> None:
        """Ask about one patient."""
        self._ask("predict", {"entities": {ENTITY: _patient()}}, 1)

    @task(2)
    def rank(self) -> None:
        """Ask about many patients at once, as one unit."""
        instances = [{"entities": {ENTITY: _patient()}} for _ in range(BATCH_INSTANCES)]
        self._ask("rank", {"instances": instances, "unit": _patient()}, BATCH_INSTANCES)

    @task(3)
    def report_outcome(self) -> None:
        """Tell what came of a prediction; nothing where there was none yet."""
        if not self._predicted:
            return
        outcome = {"prediction_id": self._predicted.popleft(), "row": 0, "metric": "load_test", "value": 1.0}
        with self.client.post(OUTCOMES, json=outcome, name="outcome", catch_response=True) as response:
            if response.status_code != 202:
                response.failure(f"status {response.status_code}")

    def _ask(self, name: str, body: dict[str, Any], instances: int) -> None:
        with self.client.post(PREDICT, json=body, name=name, catch_response=True) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}")
                return
            try:
                answer = response.json()
            except ValueError:
                response.failure("not JSON")
                return
            problem = answer_problem(answer, instances)
            if problem is not None:
                response.failure(problem)
                return
            self._predicted.append(answer["prediction_id"])


def _patient() -> str:
    return f"p{random.randrange(PATIENTS)}"
