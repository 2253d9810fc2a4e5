"""A runtime of another distribution, in a worker of its own."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.unit.model_workers.running_worker import running_worker
from tests.unit.model_workers.runtime_example import (
    install_example,
    linear_manifest,
    linear_scores,
    publish_linear_model,
)

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("model_workers", "contracts", "settings", "telemetry")


@pytest.mark.integration
def test_the_documented_runtime_serves_over_http_once_its_distribution_is_installed(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for room in ROOMS:
        (tree / room).symlink_to(ROOT / room)
    install_example(tree)
    repository = tmp_path / "models"
    publish_linear_model(repository, linear_manifest())
    rows = np.random.default_rng(0).normal(size=(40, 3))
    with running_worker(repository, tmp_path / "log", tree=tree) as worker:
        np.testing.assert_allclose(worker.score("price", "1", "x", rows, "FP64")["y"], linear_scores(rows), rtol=1e-12)
        wrong = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [1, 2]}]}
        status, _, body = worker.ask("POST", "/v2/models/price/infer", json.dumps(wrong).encode())
        assert (status, b"this model takes [-1, 3]" in body) == (400, True)
