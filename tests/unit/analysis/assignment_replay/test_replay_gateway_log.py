"""A log that the gateway's own table wrote of requests that its own code drew: every row is explained."""

import random
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.assignment_replay import replay
from contracts.datatypes import BYTES
from experiments import UNASSIGNED, Assignment, Reason, assign, shadow_version
from feature_store import FeatureStatus, ProjectedRow
from gateway.predict_request import Instance, PredictRequest
from gateway.prediction_log.packed_columns import unpacked
from gateway.prediction_log.prediction_table import LoggedColumns, PredictionEntry, PredictionTable
from gateway.request_names import attributes_of
from tests.unit.analysis.assignment_replay.conftest import found
from tests.unit.analysis.assignment_replay.logged_history import (
    DEFAULT_VERSION,
    START_US,
    RegisterHistory,
    arms,
    document,
)

OUTPUTS = ((("score", "FP32"),),)
FED = LoggedColumns(("profile",), ((("request.dose", "FP32"),), (("request.country", BYTES),)), OUTPUTS)
STATIC = LoggedColumns((), (), OUTPUTS)
FOUND = ProjectedRow((), FeatureStatus.PRESENT, START_US)
REQUESTS_PER_REVISION = 150

FIRST = {"name": "first", "slots": [[0, 6_000]]}
SECOND = {"name": "first", "slots": [[6_000, 10_000]]}
WHERE = "dose <= 0.3 and country in ['JP', 'DE']"
HOLDOUT = {"name": "h", "bp": 800}
SHADOW = {"version": "3", "sample_bp": 3_000}
CHANGES = (
    document("a", layer=FIRST, enrol_bp=2_000),
    document("b", layer=SECOND, hash="growthbook-v2", where="not (user == 'u7')", enrol_bp=5_000),
    document("a", layer=FIRST, enrol_bp=9_000, shadow=SHADOW),
    document("a", layer=FIRST, enrol_bp=9_000, where=WHERE, overrides={"u3": "treatment", "7": "control"}),
    document("b", layer=SECOND, hash="growthbook-v2", variants=arms(2_000, 3_000, 5_000), holdout=HOLDOUT),
    document("a", layer=FIRST, where=WHERE, variants=arms(9_000, 1_000), holdout=HOLDOUT),
    document("a", layer=FIRST, where="tier == 'gold'", variants=arms(9_000, 1_000), shadow=SHADOW),
    document("a", layer=FIRST, state="paused", variants=arms(9_000, 1_000)),
    document("c", hash="eppo", layer={"name": "c"}, enrol_bp=4_000, shadow={"version": "2", "sample_bp": 10_000}),
    document("c", hash="eppo", layer={"name": "c"}, state="paused"),
    document("b", layer=SECOND, hash="growthbook-v2", state="concluded", variants=arms(2_000, 3_000, 5_000)),
    document("a", layer=FIRST, state="concluded", winner="treatment", variants=arms(9_000, 1_000), where="dose < 0.5"),
)


class GatewayLog:
    """Draws requests and writes their rows, a table a version."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._entries: dict[tuple[str, LoggedColumns], list[PredictionEntry]] = {}
        self._answered = 0

    def answer(self, experiments) -> None:
        """Draw a request, decide it as the gateway does, and log it with its shadow."""
        some = self._random
        request = self._request()
        unit = some.choice([None, *(f"u{i}" for i in range(60)), "7", "漢字"])
        attributes = attributes_of(request)
        if some.random() < 0.1:  # tensors: what the caller sends beside them is not logged
            request, attributes = PredictRequest(), {"dose": 0.1, "country": some.choice(["JP", "FR"])}
        decision = assign(experiments, unit, attributes)
        running = [e for e in experiments if e.state == "running"]
        if running and some.random() < 0.03:
            decision = Assignment(running[0], running[0].variants[1], Reason.FORCED)
        version = decision.variant.version if decision.variant else DEFAULT_VERSION
        served = decision.variant.name if decision.variant else None
        if some.random() < 0.05:
            self._log("static", request, unit, decision, None, error_code="worker_unavailable")
            return
        entry = self._log(version, request, unit, decision, served)
        shadow = shadow_version(decision, unit, version) if unit is not None else None
        if shadow is not None:
            late = entry._replace(ts_us=entry.ts_us + 900_000, variant_served=None, shadow=True)
            self._entries.setdefault((shadow, FED), []).append(late)

    def write(self, root) -> None:
        """Write the files."""
        for number, ((version, columns), entries) in enumerate(self._entries.items()):
            table = PredictionTable("m", version, ["user"], columns)
            folder = root / f"{table.directory}/date=2026-01-01/hour=10"
            folder.mkdir(parents=True, exist_ok=True)
            batches = [table.batch(entries[at : at + 100]) for at in range(0, len(entries), 100)]
            pq.write_table(unpacked(pa.Table.from_batches(batches)), folder / f"h-b-{number:06}.parquet")

    def _request(self) -> PredictRequest:
        some = self._random
        instances = [
            Instance(
                {"user": some.choice(["u3", "u7", 7, "7"])} if some.random() < 0.5 else {},
                {"dose": some.choice([0.1, 0.3, 0.30000001, 0.4]), "country": some.choice(["JP", "DE", "FR"])},
            )
            for _ in range(some.choice([1, 1, 1, 3]))
        ]
        if len(instances) > 1 and some.random() < 0.7:
            instances = [instances[0]] * len(instances)
        shared = {"user": some.choice(["u1", 8])} if some.random() < 0.7 else {}
        return PredictRequest(instances, shared, {"tier": some.choice(["gold", "free"])})

    def _log(self, version, request, unit, decision, served, error_code=None) -> PredictionEntry:
        self._answered += 1
        instances = request.instances or [Instance(features={"dose": 0.2, "country": "JP"})]
        doses = np.array([instance.features["dose"] for instance in instances], "<f4").tobytes()
        words = [instance.features["country"].encode() for instance in instances]
        columns = STATIC if version == "static" else FED
        entry = PredictionEntry(
            ts_us=START_US + self._answered * 1_000,
            prediction_id=f"p{self._answered:06}",
            request_id="r",
            request=request,
            unit=unit,
            assignment=decision,
            variant_served=served,
            row_count=len(instances),
            inputs=(doses, b"".join(struct.pack("<I", len(w)) + w for w in words)) if columns is FED else (),
            found=[(FOUND,)] * len(instances) if request.instances and columns is FED else [],
            outputs=[[0.5] * len(instances)],
            degraded=(),
            error_code=error_code,
            features_us=1,
            queue_us=1,
            infer_us=1,
            total_us=3,
        )
        self._entries.setdefault((version, columns), []).append(entry)
        return entry


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with a log of twelve revisions, and their audit trail."""
    root = tmp_path_factory.mktemp("gateway")
    history, log = RegisterHistory(), GatewayLog(seed=5)
    for change in CHANGES:
        history.put(change)
        for _ in range(REQUESTS_PER_REVISION):
            log.answer(history.register.of_model("m"))
    for _ in range(20):
        log.answer(())  # switched off
    log.write(root)
    history.write(root / "audit.jsonl")
    return root


def test_every_row_that_the_gateway_wrote_is_explained_by_the_revision_that_it_names(written):
    report = replay(written, [written / "audit.jsonl"], threads=1)
    assert found(report) == {}
    assert report.rows > REQUESTS_PER_REVISION * len(CHANGES)
    assert len(report.revisions) >= len(CHANGES) - 3  # an experiment names the row only where it is the last to decide
    assert set(report.rows_by_reason) == {
        *(reason.value for reason in Reason if reason not in {Reason.NO_UNIT, UNASSIGNED.reason}),
        "no_experiment",
    }
    assert 0 < report.rows_targeting_unknown < report.rows / 3


@pytest.mark.parametrize("place", range(4))
def test_one_row_of_it_that_was_changed_is_one_mismatch(written, tmp_path, place):
    files = sorted(written.glob("predictions/*/*/*/*.parquet"))
    changed = None
    for number, path in enumerate(files):
        target = tmp_path / path.relative_to(written)
        target.parent.mkdir(parents=True, exist_ok=True)
        table = pq.read_table(path, partitioning=None)
        drawn = [i for i, p in enumerate(table["assignment_probability"].to_pylist()) if p is not None]
        if number == place and drawn:
            changed = drawn[len(drawn) // 2]
            buckets = table["split_bucket"].to_pylist()
            buckets[changed] = (buckets[changed] + 1) % 10_000
            column = table.schema.get_field_index("split_bucket")
            table = table.set_column(column, table.schema.field(column), pa.array(buckets, pa.int16()))
        pq.write_table(table, target)
    report = replay(tmp_path, [written / "audit.jsonl"], threads=1)
    assert found(report) == ({} if changed is None else {"split_bucket": 1})
