"""Numbers off a gateway's metrics page."""

import re
import time

from tests.integration.gateway_client import until
from tests.integration.gateway_stack import Gateway

SECOND_ATTEMPTS = {
    "hedges": "sekisho_dispatch_hedges_total",
    "retries": "sekisho_dispatch_retries_total",
    "ejections": "sekisho_worker_ejections_total",
}


def total(gateway: Gateway, metric: str, model: str) -> float:
    """Add up a metric's samples of one model."""
    samples = re.findall(rf'^{metric}\{{[^}}]*model="{model}"[^}}]*\}} (\S+)', gateway.metrics(), re.MULTILINE)
    return sum(map(float, samples))


def second_attempts(gateway: Gateway, model: str) -> dict[str, float]:
    """Count what was done about workers that failed or were late."""
    return {name: total(gateway, metric, model) for name, metric in SECOND_ATTEMPTS.items()}


def second_attempts_since(gateway: Gateway, model: str, before: dict[str, float]) -> str:
    """Say what was done since then, for a report."""
    now = second_attempts(gateway, model)
    return ", ".join(f"{now[name] - before[name]:.0f} {name}" for name in now)


def wait_until_ejected(gateway: Gateway, model: str, timeout_s: float = 20.0) -> float:
    """Wait until a worker of the model is given nothing. Returns how long that took, in seconds."""
    begun_s = time.monotonic()
    until("a worker is ejected", lambda: total(gateway, "sekisho_worker_ejected", model) > 0, timeout_s)
    return time.monotonic() - begun_s


def wait_until_readmitted(gateway: Gateway, model: str, timeout_s: float = 60.0) -> None:
    """Wait until no worker of the model is ejected."""
    until("no worker is ejected", lambda: total(gateway, "sekisho_worker_ejected", model) == 0, timeout_s)
