"""Both models in the process that calls them, on one thread."""

from pathlib import Path
from typing import Protocol

import lightgbm
import numpy as np
import onnxruntime


class Scorer(Protocol):
    """Scores rows of features: (rows, features) in, (rows,) out."""

    def __call__(self, rows: list[list[float]]) -> list[float]:
        """Score."""
        ...


def onnx_scorer(file: Path) -> Scorer:
    """Load an ONNX classifier; the score is the positive class's probability."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    input_name = session.get_inputs()[0].name

    def score(rows: list[list[float]]) -> list[float]:
        # Only this output: the label would be computed for nothing.
        probabilities = session.run(["probabilities"], {input_name: np.asarray(rows, dtype=np.float32)})[0]
        scores: list[float] = probabilities[:, 1].tolist()
        return scores

    return score


def lightgbm_scorer(file: Path) -> Scorer:
    """Load a LightGBM model in its text form."""
    booster = lightgbm.Booster(model_file=file)

    def score(rows: list[list[float]]) -> list[float]:
        scores = booster.predict(np.asarray(rows, dtype=np.float32), num_threads=1)
        return [float(score) for score in np.asarray(scores)]

    return score


def load_scorer(file: Path) -> Scorer:
    """Load either kind, by the file's suffix."""
    return onnx_scorer(file) if file.suffix == ".onnx" else lightgbm_scorer(file)
