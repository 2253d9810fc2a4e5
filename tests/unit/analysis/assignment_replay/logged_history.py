"""Makes a register's history and a log that follows from it, each as the gateway writes them."""

import json
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.assignment_replay.logged_assignment import COLUMN_BY_FACT, FACTS, LoggedAssignment, logged_assignment
from contracts.prediction_record import prediction_schema
from experiments import Assignment, Experiment, assign, shadow_version
from experiments.register import Register, put

START_US = 1_767_261_600_000_000
"""2026-01-01 10:00 UTC."""

DEFAULT_VERSION = "0"
"""Of the route: what serves where no arm does."""


def document(name: str = "e", **changes: Any) -> dict[str, Any]:
    """Make a document of two even arms, all enrolled."""
    return {
        "experiment": name,
        "model": "m",
        "unit": "user",
        "state": "running",
        "variants": arms(5_000, 5_000),
    } | changes


def arms(*shares_bp: int) -> list[dict[str, Any]]:
    """Make arms of these shares: control with version 1, and others."""
    names = ["control", "treatment", "other"]
    return [{"name": names[i], "version": str(i + 1), "bp": bp} for i, bp in enumerate(shares_bp)]


class RegisterHistory:
    """A register, and its audit trail as `sekisho-experiments audit --export` writes it."""

    def __init__(self) -> None:
        self.register = Register()
        self.lines: list[dict[str, Any]] = []

    def put(self, document: Mapping[str, Any]) -> Experiment:
        """Put a document, as the admin API does."""
        change = put(self.register, document, START_US)
        assert change.entry is not None
        before = self.register.entries.get(change.entry.experiment.name)
        self.register, experiment = change.register, change.entry.experiment
        self.say(
            action="put",
            experiment=experiment.name,
            revision=experiment.revision,
            epoch=experiment.epoch,
            before=before.experiment.document if before is not None else None,
            after=experiment.document,
        )
        return experiment

    def say(self, **entry: Any) -> None:
        """Add an entry to the trail."""
        said = {"id": f"{len(self.lines)}-0", "at": "2026-01-01T10:00:00+00:00", "actor": "a", "reason": "r"}
        self.lines.append(said | {"experiment": None, "revision": 1, "epoch": None, "after": None} | entry)

    def write(self, path: Path) -> Path:
        """Write the trail."""
        path.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")
        return path


class Rows:
    """Rows of a log, by default a millisecond apart. first: the number of the first."""

    def __init__(self, first: int = 0) -> None:
        self._numbers = count(first)
        self.rows: list[dict[str, Any]] = []

    def answer(
        self,
        experiments: Sequence[Experiment],
        unit: str | None,
        attributes: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        """Log a request's one row, drawn by what serves."""
        return self.log(assign(experiments, unit, attributes or {}), unit, **changes)

    def log(self, decision: Assignment, unit: str | None, **changes: Any) -> dict[str, Any]:
        """Log a decision."""
        number = next(self._numbers)
        experiment, variant = decision.experiment, decision.variant
        row = {
            "prediction_id": f"p{number:09}",
            "row": 0,
            "request_id": "r",
            "schema_version": 1,
            "ts": START_US + number * 1_000,
            "model": "m",
            "version": DEFAULT_VERSION if variant is None else variant.version,
            "experiment": None if experiment is None else experiment.name,
            "revision": None if experiment is None else experiment.revision,
            "epoch": None if experiment is None else experiment.epoch,
            "unit": unit,
            "variant_assigned": None if variant is None else variant.name,
            "variant_served": None if variant is None else variant.name,
            "enrol_bucket": decision.enrol_bucket,
            "split_bucket": decision.split_bucket,
            "assignment_probability": decision.probability,
            "forced": decision.reason == "forced",
            "shadow": False,
            "degraded": [],
            "error_code": None,
            **dict.fromkeys(("features_us", "queue_us", "infer_us", "total_us"), 1),
            "sample_weight": 1.0,
        }
        self.rows.append(row | changes)
        return self.rows[-1]

    def shadow(self, decision: Assignment, unit: str, answered: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
        """Log the shadow of an answered row."""
        version = shadow_version(decision, unit, answered["version"])
        assert version is not None
        self.rows.append({**answered, "version": version, "variant_served": None, "shadow": True} | changes)
        return self.rows[-1]

    def write(
        self,
        root: Path,
        *,
        model: str = "m",
        entities: Sequence[str] = (),
        views: Sequence[str] = (),
        features: Sequence[tuple[str, str]] = (),
    ) -> Path:
        """Write a file of these rows, which may hold columns of entities, views and features. Returns the root."""
        schema = prediction_schema(entities=entities, views=views, features=features, outputs=[("score", "FP32")])
        columns = [pa.array([row.get(field.name) for row in self.rows], field.type) for field in schema]
        folder = root / f"predictions/model={model}/date=2026-01-01/hour=10"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"host-boot-{len(list(folder.iterdir())):06}.parquet"
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), path, compression="zstd")
        return root


def as_read(row: Mapping[str, Any]) -> LoggedAssignment:
    """Give a row as the replay reads it out of a log."""
    facts = {fact: row[column] for fact, column in COLUMN_BY_FACT.items()}
    facts["stepped_down"] = row["error_code"] is not None
    facts["unit"] = None if row["experiment"] is None else row["unit"]
    return logged_assignment(tuple(facts[fact] for fact in FACTS))
