"""Prediction and outcome logs of an experiment, written as gateways would write them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.outcome_record import OUTCOME_SCHEMA
from contracts.prediction_record import prediction_schema

DAY_US = 86_400_000_000
START_US = 1_767_225_600_000_000  # 2026-01-01 UTC


class ExperimentLogs:
    """Writes prediction and outcome logs as gateways would, from whole columns; a scalar fills its column."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files = 0

    def rows(self, unit: Any, arm: Any, at_us: Any, *, output: str = "score", **given: Any) -> Any:
        """Write one file of rows, of the split unless `given` says otherwise; give their prediction ids."""
        self._files += 1
        rows = len(unit)
        ids = np.char.add(f"p{self._files}-", np.arange(rows).astype(str))
        known = {
            "prediction_id": ids,
            "row": 0,
            "request_id": "r",
            "schema_version": 1,
            "ts": _times(at_us),
            "model": "diagnosis",
            "version": "1",
            "experiment": "exp",
            "revision": 1,
            "epoch": 1,
            "unit": unit,
            "variant_assigned": arm,
            "variant_served": arm,
            "assignment_probability": 0.5,
            "forced": False,
            "shadow": False,
            "degraded": pa.array([[]] * rows, pa.list_(pa.string())),
            "features_us": 1,
            "queue_us": 1,
            "infer_us": 1,
            "total_us": 1000,
            "sample_weight": 1.0,
        } | given
        schema = prediction_schema(entities=[], views=[], features=[], outputs=[(output, "FP64")])
        table = pa.Table.from_arrays(
            [_column(known.get(field.name.removeprefix("y."), None), field.type, rows) for field in schema],
            schema=schema,
        )
        self._write(table, self.root / "predictions/model=diagnosis/date=2026-01-01/hour=00")
        return known["prediction_id"]

    def outcomes(self, metric: str, value: Any, at_us: Any, **given: Any) -> None:
        """Write one file of outcomes, by `prediction_id` (and `row`) or by `unit`."""
        self._files += 1
        rows = len(given.get("prediction_id", given.get("unit", ())))
        known = {
            "schema_version": 1,
            "row": None if "unit" in given else 0,
            "metric": metric,
            "value": value,
            "at": _times(at_us),
            "received_at": _times(at_us),
        } | given
        table = pa.Table.from_arrays(
            [_column(known.get(field.name), field.type, rows) for field in OUTCOME_SCHEMA], schema=OUTCOME_SCHEMA
        )
        self._write(table, self.root / "outcomes/date=2026-01-01/hour=00")

    def _write(self, table: pa.Table, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / f"host-boot-{self._files:06}.parquet", compression="zstd")


def _times(at_us: Any) -> Any:
    return at_us if np.isscalar(at_us) else np.asarray(at_us, "i8")


def _column(values: Any, kind: pa.DataType, rows: int) -> pa.Array:
    if values is None:
        return pa.nulls(rows, kind)
    if np.isscalar(values):
        values = np.full(rows, values)
    array = values if isinstance(values, pa.Array) else pa.array(values)
    if pa.types.is_dictionary(kind):
        return array.cast(pa.string()).dictionary_encode()
    return array.cast(kind)


def document(**changes: Any) -> Mapping[str, Any]:
    """Give a document of a 50/50 experiment on `correct`."""
    return {
        "experiment": "exp",
        "model": "diagnosis",
        "unit": "patient",
        "state": "running",
        "variants": [
            {"name": "control", "version": "1", "bp": 5000},
            {"name": "treatment", "version": "2", "bp": 5000},
        ],
        "metrics": {"primary": "correct", "covariate_days": 0},
    } | changes


def simple_experiment(logs: ExperimentLogs, rng: np.random.Generator, *, units: int = 3_000, lift: float = 0.0) -> None:
    """Write five days in which each unit comes about twice and is told `correct` for each row: 0.5 and the lift."""
    arm = rng.integers(0, 2, units)
    rows = 2 * units
    unit = rng.integers(0, units, rows)
    at_us = START_US + np.sort(rng.integers(0, 5 * DAY_US, rows))
    names = np.array([f"u{n}" for n in range(units)])
    arms = np.array(["control", "treatment"])[arm[unit]]
    ids = logs.rows(names[unit], arms, at_us, version=np.array(["1", "2"])[arm[unit]], score=rng.random(rows))
    correct = rng.random(rows) < 0.5 + lift * arm[unit]
    logs.outcomes("correct", correct.astype("f8"), at_us + 1_000, prediction_id=ids)


MINUTE_US = 60_000_000


def full_experiment(logs: ExperimentLogs, rng: np.random.Generator, *, units: int = 2_400) -> Mapping[str, Any]:
    """Write ten minutes with two epochs, three arms, a past, shadow pairs and everything else; give the document."""
    names = np.array([f"u{n}" for n in range(units)])
    level, bucket = rng.random(units), rng.random(units)
    past = logs.rows(names, None, START_US - DAY_US, experiment=None, assignment_probability=None, score=level)
    logs.outcomes("correct", (rng.random(units) < level).astype("f8"), START_US - 100, prediction_id=past)
    for epoch, (shares, begins) in enumerate((((0.6, 0.2, 0.2), 0), ((0.4, 0.3, 0.3), 5)), start=1):
        arm = np.searchsorted(np.cumsum(shares)[:2], bucket, side="right")
        at_us = START_US + begins * MINUTE_US + np.sort(rng.integers(0, 5 * MINUTE_US, units))
        arms = np.array(["control", "treatment", "cautious"])[arm]
        differs = level > 0.7
        score = {v: np.clip(level + 0.2 * differs * (v == "2"), 0, 1) for v in ("1", "2")}
        own = np.array(["1", "2", "3"])[arm]
        ids = logs.rows(
            names,
            arms,
            at_us,
            epoch=epoch,
            version=own,
            variant_served=np.where(rng.random(units) < 0.01, None, arms).tolist(),
            error_code=pa.array(np.where(rng.random(units) < 0.03, "timeout", None).tolist(), pa.string()),
            assignment_probability=np.array(shares)[arm],
            total_us=(rng.lognormal(8, 0.4, units) * (1 + 0.2 * (arm == 1))).astype("i4"),
            score=np.where(own == "2", score["2"], score["1"]),
        )
        twice = np.flatnonzero((arm < 2) & (rng.random(units) < 0.6))
        other = np.where(arm == 0, "2", "1")[twice]
        logs.rows(
            names[twice],
            arms[twice],
            at_us[twice],
            epoch=epoch,
            version=other,
            shadow=True,
            prediction_id=ids[twice],
            score=np.where(other == "2", score["2"][twice], score["1"][twice]),
        )
        correct = rng.random(units) < np.clip(level + 0.25 * (arm == 1) * differs, 0, 1)
        logs.outcomes("correct", correct.astype("f8"), at_us + 1_000, prediction_id=ids)
        logs.outcomes("purchase", np.floor(rng.exponential(3, units)), at_us + 2_000, unit=names)
    return document(
        variants=[
            {"name": "control", "version": "1", "bp": 4000},
            {"name": "treatment", "version": "2", "bp": 3000},
            {"name": "cautious", "version": "3", "bp": 3000},
        ],
        metrics={
            "primary": "correct",
            "secondary": ["score", {"name": "purchase", "of": "per_unit"}],
            "mde_rel": 0.1,
            "units_planned": 3_000,
            "covariate_days": 14,
        },
    )
