"""Small real models, trained on real data and published as a repository. For tests and benchmarks."""

from dataclasses import dataclass
from pathlib import Path

import lightgbm
import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import GradientBoostingClassifier

from contracts.manifest import FILE_NAME, Artifact, Input, Manifest, Output, encode_manifest, sha256_of

CREATED_AT = "2026-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class OfflineModel:
    """A published version, rows to send it and what the library answers for them offline."""

    model: str
    version: str
    rows: np.ndarray
    scores: np.ndarray


def publish(repository: Path, artifact: bytes, manifest: Manifest) -> Path:
    """Write a version as a publisher would; the artifact's hash is filled in. Returns its folder."""
    directory = repository / manifest.model / manifest.version
    directory.mkdir(parents=True)
    file = directory / manifest.artifact.file
    file.write_bytes(artifact)
    manifest = Manifest(**{**_fields(manifest), "artifact": Artifact(file.name, sha256_of(file))})
    (directory / FILE_NAME).write_bytes(encode_manifest(manifest))
    return directory


def onnx_manifest(model: str, version: str, columns: int, **changes) -> Manifest:
    """Declare a binary classifier that skl2onnx converted."""
    fields = {
        "model": model,
        "version": version,
        "runtime": "onnxruntime",
        "artifact": Artifact("model.onnx", "0" * 64),
        "inputs": (Input("X", "FP32", (-1, columns)),),
        "outputs": (Output("malignant", "FP32", source="probabilities", column=1),),
        "created_at": CREATED_AT,
    }
    return Manifest(**{**fields, **changes})


def lightgbm_manifest(model: str, version: str, columns: int, **changes) -> Manifest:
    """Declare a LightGBM model with one score a row."""
    fields = {
        "runtime": "lightgbm",
        "artifact": Artifact("model.txt", "0" * 64),
        "inputs": (Input("features", "FP32", (-1, columns)),),
        "outputs": (Output("malignant", "FP32"),),
    }
    return onnx_manifest(model, version, columns, **{**fields, **changes})


def publish_onnx_classifier(repository: Path, *, model: str = "diagnosis", version: str = "1") -> OfflineModel:
    """Publish a boosted classifier of breast tumours as ONNX."""
    rows, target = load_breast_cancer(return_X_y=True)
    rows = rows.astype(np.float32)
    classifier = GradientBoostingClassifier(n_estimators=10, random_state=0).fit(rows, target)
    converted = to_onnx(classifier, rows[:1], options={id(classifier): {"zipmap": False}}, target_opset=17)
    publish(repository, converted.SerializeToString(), onnx_manifest(model, version, rows.shape[1]))
    return OfflineModel(model, version, rows, classifier.predict_proba(rows)[:, 1])


def publish_lightgbm_classifier(repository: Path, *, model: str = "diagnosis", version: str = "2") -> OfflineModel:
    """Publish a boosted classifier of breast tumours in LightGBM's own form."""
    rows, target = load_breast_cancer(return_X_y=True)
    rows = rows.astype(np.float32)
    booster = _train(rows, target, "binary")
    publish(repository, booster.model_to_string().encode(), lightgbm_manifest(model, version, rows.shape[1]))
    return OfflineModel(model, version, rows, booster.predict(rows))


def publish_lightgbm_multiclass(repository: Path, *, model: str = "iris", version: str = "1") -> OfflineModel:
    """Publish a classifier of three irises, whose answer is a probability a class."""
    rows, target = load_iris(return_X_y=True)
    booster = _train(rows, target, "multiclass", num_class=3)
    manifest = lightgbm_manifest(
        *(model, version, 4),
        inputs=(Input("features", "FP64", (-1, 4)),),
        outputs=(Output("species", "FP64", (-1, 3)), Output("virginica", "FP32", source="species", column=2)),
    )
    publish(repository, booster.model_to_string().encode(), manifest)
    return OfflineModel(model, version, rows, booster.predict(rows))


def publish_lightgbm_regression(repository: Path, *, model: str = "petal", version: str = "1") -> OfflineModel:
    """Publish a regression of petal width on the other measures of an iris."""
    measures, _ = load_iris(return_X_y=True)
    rows, target = measures[:, :3], measures[:, 3]
    booster = _train(rows, target, "regression")
    manifest = lightgbm_manifest(
        *(model, version, 3),
        inputs=(Input("features", "FP64", (-1, 3)),),
        outputs=(Output("width_cm", "FP64"),),
    )
    publish(repository, booster.model_to_string().encode(), manifest)
    return OfflineModel(model, version, rows, booster.predict(rows))


def _train(rows: np.ndarray, target: np.ndarray, objective: str, **parameters) -> lightgbm.Booster:
    settings = {"objective": objective, "verbosity": -1, "num_threads": 1, "seed": 0, **parameters}
    return lightgbm.train(settings, lightgbm.Dataset(rows, target), num_boost_round=10)


def _fields(manifest: Manifest) -> dict:
    return {name: getattr(manifest, name) for name in manifest.__struct_fields__}
