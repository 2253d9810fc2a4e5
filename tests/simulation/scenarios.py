"""Fleets with something wrong."""

from tests.simulation.fleet import Scenario
from tests.simulation.simulated_worker import Behaviour, Condition, always

WORKER_REQUESTS_PER_S = 80
"""That one healthy worker gets through, one at a time."""


def bad_fleet(replicas: int, *, load: float, duration_s: float, seed: int = 1) -> Scenario:
    """Of a hundred: 5 take eight times as long, 3 fail at once, 3 fail for 5 s in every 15, 1 stops for 15 s.

    load: a share of what all of them could do if nothing were wrong.
    """
    slow, failing, flapping = max(1, replicas // 20), max(1, replicas * 3 // 100), max(1, replicas * 3 // 100)
    wrong = [
        *[Behaviour(slowness=always(8.0))] * slow,
        *[Behaviour(failing=always(1.0))] * failing,
        *[Behaviour(failing=_flapping(4.0 * index)) for index in range(flapping)],
        Behaviour(stopped=lambda since_s: 0.25 * duration_s <= since_s < 0.25 * duration_s + 15),
    ]
    return Scenario(
        behaviours=[*wrong, *[Behaviour()] * (replicas - len(wrong))],
        requests_per_s=load * WORKER_REQUESTS_PER_S * replicas,
        duration_s=duration_s,
        seed=seed,
    )


def brown_out(
    replicas: int,
    *,
    load: float,
    duration_s: float,
    slowness: float = 2.0,
    failing: float = 0.0,
    fails_at_once: bool = False,
    seed: int = 1,
) -> Scenario:
    """For the second quarter of the time every worker takes longer, and a share of its batches fail in the end."""

    def during(inside: float, outside: float) -> Condition:
        return lambda since_s: inside if 0.25 <= since_s / duration_s < 0.5 else outside

    behaviour = Behaviour(slowness=during(slowness, 1.0), failing=during(failing, 0.0), fails_at_once=fails_at_once)
    return Scenario(
        behaviours=[behaviour] * replicas,
        requests_per_s=load * WORKER_REQUESTS_PER_S * replicas,
        duration_s=duration_s,
        seed=seed,
    )


def _flapping(offset_s: float) -> Condition:
    return lambda since_s: 1.0 if (since_s + offset_s) % 15 < 5 else 0.0
