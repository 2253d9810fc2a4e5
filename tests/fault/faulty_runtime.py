"""A runtime that fails on some rows and takes its time for all, as a test sets it: what a canary is to find out.

It answers `factor` times the row's one column, sleeps `row_s` a row, and raises where that column is `fails_from` or
more: on the same rows always, however they are batched, and not on the small numbers that a worker warms up with. It is
installed beside a worker as any other distribution's runtime would be (docs/runtimes.md).
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contracts.manifest import Artifact, Input, Manifest, Output, encode_manifest, sha256_of

Arrays = dict[str, np.ndarray[Any, Any]]

INPUT, OUTPUT = "x", "y"
NEVER = 1e9


class FaultyModel:
    """A loaded model of this runtime."""

    def __init__(self, row_s: float, factor: float, fails_from: float) -> None:
        self._row_s, self._factor, self._fails_from = row_s, factor, fails_from

    def infer(self, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        """Take as long as so many rows take, and answer. Raises ArithmeticError where a row is one that it fails on."""
        column = inputs[INPUT][:, 0]
        if self._row_s:
            time.sleep(len(column) * self._row_s)
        if np.any(column >= self._fails_from):
            raise ArithmeticError("a row that this version fails on")
        return dict.fromkeys(outputs, (column * self._factor).astype(np.float64))

    def close(self) -> None:
        """Hold nothing."""


def load(directory: Path, manifest: Manifest) -> FaultyModel:
    """Open the artifact: JSON with `row_s`, `factor` and `fails_from`."""
    return FaultyModel(**json.loads((directory / manifest.artifact.file).read_bytes()))


def install_faulty(directory: Path) -> None:
    """Write a distribution's metadata with the entry point into a folder that is to be on the worker's path."""
    metadata = directory / "faulty_runtime-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty-runtime\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[sekisho.runtimes]\nfaulty = tests.fault.faulty_runtime:load\n")


def publish_faulty(
    repository: Path, model: str, version: str, *, factor: float, row_s: float = 0.0, fails_from: float = NEVER
) -> None:
    """Publish a version whose one column is `request:amount`."""
    folder = repository / model / version
    folder.mkdir(parents=True)
    artifact = folder / "model.json"
    artifact.write_text(json.dumps({"row_s": row_s, "factor": factor, "fails_from": fails_from}))
    manifest = Manifest(
        model=model,
        version=version,
        runtime="faulty",
        artifact=Artifact(artifact.name, sha256_of(artifact)),
        inputs=(Input(INPUT, "FP32", (-1, 1), ("request:amount",)),),
        outputs=(Output(OUTPUT, "FP64"),),
        created_at="2026-01-01T00:00:00Z",
        batch_rows_max=8,
    )
    (folder / "manifest.json").write_bytes(encode_manifest(manifest))
