"""Extensions of Triton's, where the server lists or has them. Nothing is loaded or unloaded."""

from typing import Any, Final

from tests.conformance.check import Check, Level
from tests.conformance.expectations import NotOffered, expect, expect_object, expect_status
from tests.conformance.probe import Probe
from tests.conformance.sources import REPOSITORY, STATISTICS

REPOSITORY_EXTENSION: Final = "model_repository"
STATISTICS_EXTENSION: Final = "statistics"
_COUNTERS: Final = ("inference_count", "execution_count", "last_inference")
_DURATIONS: Final = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")


def _index(probe: Probe) -> None:
    reply = probe.ask("POST", "/v2/repository/index", b"{}", {"content-type": "application/json"})
    if reply.status != 200 and REPOSITORY_EXTENSION not in probe.target.extensions:
        raise NotOffered("neither listed nor answered on this port")
    expect_status(reply, 200)
    listed = reply.json
    expect(isinstance(listed, list), "a list of models", type(listed).__name__)
    names = [entry.get("name") for entry in listed if isinstance(entry, dict)]
    expect(probe.target.model in names, "the model among them", str(names))
    for entry in listed:
        expect(isinstance(entry.get("state"), str), "a `state` for each", repr(entry.get("state")))


def _index_ready(probe: Probe) -> None:
    reply = probe.ask("POST", "/v2/repository/index", b'{"ready": true}', {"content-type": "application/json"})
    if reply.status != 200 and REPOSITORY_EXTENSION not in probe.target.extensions:
        raise NotOffered("neither listed nor answered on this port")
    expect_status(reply, 200)
    states = {entry.get("state") for entry in reply.json}
    expect(states == {"READY"}, "READY ones only", str(sorted(map(str, states))))


def _statistics(probe: Probe) -> None:
    before = _entry(probe)
    probe.answer(probe.request())
    after = _entry(probe)
    for key in _COUNTERS:
        expect(isinstance(after.get(key), int), f"`{key}`, a whole number", repr(after.get(key)))
    expect(after["inference_count"] > before["inference_count"], "a count that grew", "the same count")
    durations: Any = after.get("inference_stats")
    for key in _DURATIONS:
        found = durations.get(key) if isinstance(durations, dict) else None
        expect(isinstance(found, dict) and {"count", "ns"} <= found.keys(), f"`{key}` with count and ns", repr(found))
    expect(isinstance(after.get("batch_stats"), list), "a list `batch_stats`", repr(after.get("batch_stats")))


def _entry(probe: Probe) -> dict[str, Any]:
    reply = probe.get(probe.target.path("stats"))
    if reply.status != 200 and STATISTICS_EXTENSION not in probe.target.extensions:
        raise NotOffered("neither listed nor answered")
    listed: Any = expect_object(reply).get("model_stats")
    expect(isinstance(listed, list) and bool(listed), "a list `model_stats`", repr(listed)[:60])
    expect(listed[0].get("name") == probe.target.model, "the model's", repr(listed[0].get("name")))
    # Of several versions, the one that answers is not known here: counts are those of all.
    return {**listed[0], "inference_count": sum(entry.get("inference_count", 0) for entry in listed)}


CHECKS: Final = (
    Check(
        "repository.index",
        Level.EXTENSION,
        f"{REPOSITORY}, Index",
        "the repository's index lists the model with its state",
        _index,
    ),
    Check(
        "repository.index.ready",
        Level.EXTENSION,
        f"{REPOSITORY}, Index",
        "`ready` narrows it to models that are ready",
        _index_ready,
    ),
    Check("statistics", Level.EXTENSION, STATISTICS, "a model's statistics count an inference", _statistics),
)
