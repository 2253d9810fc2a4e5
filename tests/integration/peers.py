"""Other people's software of the protocol, from an environment of its own (`make peers`): MLServer, as a process."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import lightgbm
import numpy as np
import pytest

from settings.child_process import ChildProcess
from tests.integration.gateway_client import Client, until
from tests.integration.gateway_stack import ROOT, free_ports

PEERS: Final = ROOT / ".venv-peers"
PYTHON: Final = PEERS / "bin" / "python"
MLSERVER: Final = PEERS / "bin" / "mlserver"
READY_TIMEOUT_S: Final = 90.0
SCRIPT_TIMEOUT_S: Final = 90.0
COLUMNS: Final = 3

needs_peers = pytest.mark.skipif(
    not (PEERS / ".installed").exists(), reason="there is no .venv-peers: `make peers` makes it"
)

TRAIN_SKLEARN: Final = Path(__file__).with_name("train_sklearn.py")


@dataclass(frozen=True, slots=True)
class OfflineScores:
    """Rows, and what each of MLServer's models answers for them offline, by its name there."""

    rows: np.ndarray[Any, Any]
    scores: dict[str, np.ndarray[Any, Any]]


class MlServer:
    """A real MLServer on loopback with `churn-lightgbm` and `churn-sklearn`, both of one FP32 input `X` (-1, 3)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port, self.grpc_port = free_ports(2)
        self.offline = _publish(directory, self.port, self.grpc_port)
        self._child = ChildProcess(
            [str(MLSERVER), "start", str(directory)], log_file=directory / "mlserver.log", directory=directory
        )

    def __enter__(self) -> Self:
        """Start it and wait until its models are ready."""
        try:
            self._child.start()
            until("MLServer is ready", self._is_ready, READY_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it. Harmless where it was not started."""
        self._child.stop()

    @property
    def lightgbm_artifact(self) -> Path:
        """LightGBM's model file, in its text form."""
        return self.directory / "churn-lightgbm" / "model.bst"

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    def _is_ready(self) -> bool:
        assert self._child.ended() is None, f"{self._child.ended()}:\n{self._child.last_lines(20)}"
        try:
            with Client(self.port) as client:
                return all(
                    client.ask("GET", f"/v2/models/{model}/ready").status == 200 for model in self.offline.scores
                )
        except OSError:
            return False


def run_script(script: Path, *arguments: str) -> Any:
    """Run a Python program in the other environment. Returns the JSON that it prints."""
    done = subprocess.run(
        [str(PYTHON), str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=SCRIPT_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def _publish(directory: Path, port: int, grpc_port: int) -> OfflineScores:
    random = np.random.default_rng(5)
    rows = random.normal(size=(200, COLUMNS)).astype(np.float32)
    target = rows @ np.array([0.5, -1.0, 0.25]) + random.normal(scale=0.1, size=len(rows))

    settings = {"objective": "regression", "num_leaves": 7, "verbosity": -1, "num_threads": 1, "seed": 0}
    booster = lightgbm.train(settings, lightgbm.Dataset(rows, target), num_boost_round=20)
    lightgbm_model = _folder(directory, "churn-lightgbm", "mlserver_lightgbm.LightGBMModel", "model.bst")
    lightgbm_model.write_text(booster.model_to_string(), encoding="utf-8")

    sklearn_model = _folder(directory, "churn-sklearn", "mlserver_sklearn.SKLearnModel", "model.joblib")
    training = directory / "training.json"
    training.write_text(json.dumps([rows.tolist(), target.tolist()]), encoding="utf-8")
    linear = run_script(TRAIN_SKLEARN, str(sklearn_model), str(training))

    server = {"host": "127.0.0.1", "http_port": port, "grpc_port": grpc_port, "parallel_workers": 0, "debug": False}
    server["metrics_endpoint"] = None
    (directory / "settings.json").write_text(json.dumps(server), encoding="utf-8")
    scores = {"churn-lightgbm": np.asarray(booster.predict(rows)), "churn-sklearn": np.array(linear)}
    return OfflineScores(rows, scores)


def _folder(directory: Path, model: str, implementation: str, artifact: str) -> Path:
    folder = directory / model
    folder.mkdir(parents=True)
    described = {
        "name": model,
        "implementation": implementation,
        "parameters": {"uri": f"./{artifact}", "version": "1"},
        "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, COLUMNS]}],
        "outputs": [{"name": "predict", "datatype": "FP64", "shape": [-1, 1]}],
    }
    (folder / "model-settings.json").write_text(json.dumps(described), encoding="utf-8")
    return folder / artifact
