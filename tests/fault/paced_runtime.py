"""A runtime whose speed a test sets: it sleeps for each row and answers `factor` times the row's first column.

With it a worker's capacity is known beforehand and takes no processor, so that overload can be tested on a small and
busy machine. It is installed beside a worker as any other distribution's runtime would be (docs/runtimes.md).
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


class PacedModel:
    """A loaded model of this runtime."""

    def __init__(self, row_s: float, factor: float) -> None:
        self._row_s, self._factor = row_s, factor

    def infer(self, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        """Take as long as so many rows take, and answer."""
        rows = inputs[INPUT]
        if self._row_s:
            time.sleep(len(rows) * self._row_s)
        return dict.fromkeys(outputs, (rows[:, 0] * self._factor).astype(np.float64))

    def close(self) -> None:
        """Hold nothing."""


def load(directory: Path, manifest: Manifest) -> PacedModel:
    """Open the artifact: JSON with `row_s` and `factor`."""
    document = json.loads((directory / manifest.artifact.file).read_bytes())
    return PacedModel(document["row_s"], document["factor"])


def install_paced(directory: Path) -> None:
    """Write a distribution's metadata with the entry point into a folder that is to be on the worker's path."""
    metadata = directory / "paced_runtime-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: paced-runtime\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[sekisho.runtimes]\npaced = tests.fault.paced_runtime:load\n")


def publish_paced(repository: Path, model: str, version: int, *, row_s: float, factor: float, feature: str) -> None:
    """Publish a version as one rename. feature: the stored feature that is its one column, `view:feature`."""
    draft = repository / f".draft-{model}-{version}"
    draft.mkdir(parents=True)
    artifact = draft / "model.json"
    artifact.write_text(json.dumps({"row_s": row_s, "factor": factor}))
    manifest = Manifest(
        model=model,
        version=str(version),
        runtime="paced",
        artifact=Artifact(artifact.name, sha256_of(artifact)),
        inputs=(Input(INPUT, "FP32", (-1, 1), (feature,)),),
        outputs=(Output(OUTPUT, "FP64"),),
        created_at="2026-01-01T00:00:00Z",
        batch_rows_max=8,
    )
    (draft / "manifest.json").write_bytes(encode_manifest(manifest))
    (repository / model).mkdir(exist_ok=True)
    draft.rename(repository / model / str(version))
