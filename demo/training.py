"""Two versions of one model, published with manifests and baseline profiles: ONNX and LightGBM."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import lightgbm
import numpy as np
import pyarrow as pa
import sklearn
from numpy.typing import NDArray
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from analysis import encode_profile, make_profile
from contracts.manifest import FILE_NAME, Artifact, Input, Lineage, Manifest, Output, encode_manifest, sha256_of
from demo.patients import REFERENCES, SEED, Patients
from demo.served_model import MODEL, OUTPUT

PROFILE_FILE: Final = "profile.json"
PROFILE_BINS: Final = 5
"""Few, since 284 patients fill no more: with B bins, chance alone gives a PSI of about (B - 1)(1/n + 1/m)."""

FOLDS: Final = 5

LIGHTGBM_ROUNDS: Final = 60


def train_and_publish(patients: Patients, repository: Path, created_at: str, tell: Callable[[str], None]) -> None:
    """Train both versions and write them to the model repository. tell: hears what is being done."""
    features = patients.features[patients.training]
    malignant = patients.malignant[patients.training]
    held_out = patients.features[patients.held_out]
    truth = patients.malignant[patients.held_out]
    tell("training version 1: logistic regression, exported to ONNX")
    regression = _fit_regression(features, malignant)
    onnx = to_onnx(regression, features[:1], options={"zipmap": False})
    _publish(
        repository,
        version="1",
        runtime="onnxruntime",
        artifact=("model.onnx", onnx.SerializeToString()),
        output=Output(OUTPUT, "FP32", (-1,), source="probabilities", column=1),
        input_name=onnx.graph.input[0].name,
        scores=_out_of_fold(_fit_regression, features, malignant),
        features=features,
        metrics={"held_out_accuracy": _accuracy(_probability(regression, held_out), truth)},
        code_revision=f"scikit-learn {sklearn.__version__}",
        created_at=created_at,
    )
    tell("training version 2: LightGBM")
    booster = _fit_booster(features, malignant)
    _publish(
        repository,
        version="2",
        runtime="lightgbm",
        artifact=("model.txt", booster.model_to_string().encode()),
        output=Output(OUTPUT, "FP32", (-1,)),
        input_name="features",
        scores=_out_of_fold(_fit_booster, features, malignant),
        features=features,
        metrics={"held_out_accuracy": _accuracy(_probability(booster, held_out), truth)},
        code_revision=f"lightgbm {lightgbm.__version__}",
        created_at=created_at,
    )


def _fit_regression(features: NDArray[np.float32], malignant: NDArray[np.int64]) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(random_state=SEED)).fit(features, malignant)


def _fit_booster(features: NDArray[np.float32], malignant: NDArray[np.int64]) -> Any:
    parameters = {"objective": "binary", "num_leaves": 8, "min_data_in_leaf": 10, "verbose": -1, "seed": SEED}
    return lightgbm.train(parameters, lightgbm.Dataset(features, malignant), LIGHTGBM_ROUNDS)


def _probability(model: Any, features: NDArray[np.float32]) -> NDArray[Any]:
    if isinstance(model, lightgbm.Booster):
        return np.asarray(model.predict(features))
    return np.asarray(model.predict_proba(features)[:, 1])


def _out_of_fold(
    fit: Callable[[NDArray[np.float32], NDArray[np.int64]], Any],
    features: NDArray[np.float32],
    malignant: NDArray[np.int64],
) -> NDArray[np.float64]:
    # A model is surer of what it has learnt by heart. Its scores of its own training rows would therefore differ from
    # those of any traffic, and every comparison with them would find drift.
    scores = np.zeros(len(malignant))
    for learn, judge in StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(features, malignant):
        scores[judge] = _probability(fit(features[learn], malignant[learn]), features[judge])
    return scores


def _publish(
    repository: Path,
    *,
    version: str,
    runtime: str,
    artifact: tuple[str, bytes],
    output: Output,
    input_name: str,
    scores: NDArray[Any],
    features: NDArray[np.float32],
    metrics: dict[str, float],
    code_revision: str,
    created_at: str,
) -> None:
    directory = repository / MODEL / version
    directory.mkdir(parents=True)
    name, data = artifact
    (directory / name).write_bytes(data)
    columns = {reference.replace(":", "."): features[:, i] for i, reference in enumerate(REFERENCES)}
    table = pa.table({**columns, f"y.{OUTPUT}": scores.astype(np.float32)})
    profile = make_profile(table, model=MODEL, version=version, bins=PROFILE_BINS)
    (directory / PROFILE_FILE).write_bytes(encode_profile(profile))
    manifest = Manifest(
        model=MODEL,
        version=version,
        runtime=runtime,
        artifact=Artifact(name, sha256_of(directory / name)),
        inputs=(Input(input_name, "FP32", (-1, len(REFERENCES)), REFERENCES),),
        outputs=(output,),
        created_at=created_at,
        lineage=Lineage(
            data_fingerprint="sha256:" + hashlib.sha256(features.tobytes()).hexdigest(),
            rows=len(features),
            code_revision=code_revision,
            metrics=metrics,
        ),
        baseline_profile=PROFILE_FILE,
    )
    # The manifest last: a directory without one is no version yet.
    (directory / FILE_NAME).write_bytes(encode_manifest(manifest))


def _accuracy(scores: NDArray[Any], truth: NDArray[np.int64]) -> float:
    return float(np.mean((scores >= 0.5) == (truth == 1)))
