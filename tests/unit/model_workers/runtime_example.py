"""The runtime that docs/runtimes.md shows, installed beside the worker as another distribution would be."""

import json
import re
from pathlib import Path

import numpy as np

from contracts.manifest import Artifact, Input, Manifest, Output
from tests.unit.model_workers.published_models import lightgbm_manifest, publish

DOCUMENT = (Path(__file__).resolve().parents[3] / "docs" / "runtimes.md").read_text()
COEFFICIENTS, INTERCEPT = (2.0, -1.0, 0.5), 10.0


def code(language: str) -> str:
    """Return the document's one example in a language."""
    (example,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    return example


def install_example(directory: Path) -> None:
    """Write the example as an installed distribution: its package, and metadata with the entry point as documented."""
    group, name, target = re.fullmatch(
        r'\[project\.entry-points\."(.+)"\]\n(\w+) = "(our_runtimes\.linear:load)"\n', code("toml")
    ).groups()
    package = directory / "our_runtimes"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "linear.py").write_text(code("python"))
    metadata = directory / "our_runtimes-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: our-runtimes\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n")


def linear_manifest(**changes) -> Manifest:
    """Declare a linear model of three columns."""
    fields = {
        "runtime": "linear",
        "artifact": Artifact("model.json", "0" * 64),
        "inputs": (Input("x", "FP64", (-1, len(COEFFICIENTS))),),
        "outputs": (Output("y", "FP64"),),
    }
    return lightgbm_manifest("price", "1", len(COEFFICIENTS), **{**fields, **changes})


def publish_linear_model(repository: Path, manifest: Manifest) -> Path:
    """Publish a linear model. Returns its folder."""
    document = {"coefficients": COEFFICIENTS, "intercept": INTERCEPT}
    return publish(repository, json.dumps(document).encode(), manifest)


def linear_scores(rows: np.ndarray) -> np.ndarray:
    """Say what the model answers."""
    return rows @ np.array(COEFFICIENTS) + INTERCEPT
