"""What a model tells of itself, alike over HTTP and gRPC: its metadata, and what it did."""

from collections.abc import Sequence
from typing import Any

from model_workers.served_models import ServedModels, ServedVersion


def model_document(version: ServedVersion, versions: Sequence[str]) -> dict[str, Any]:
    """Describe a version as `$metadata_model_response` of the Open Inference Protocol. versions: the loaded ones."""
    manifest = version.manifest
    return {
        "name": manifest.model,
        "versions": versions,
        # As Triton spells platforms: onnxruntime_onnx. Ours for others: lightgbm_txt.
        "platform": f"{manifest.runtime}_{manifest.artifact.file.rpartition('.')[2]}",
        "inputs": [{"name": i.name, "datatype": i.dtype, "shape": i.shape} for i in manifest.inputs],
        "outputs": [{"name": o.name, "datatype": o.dtype, "shape": o.shape} for o in manifest.outputs],
    }


def statistics_document(models: ServedModels, model: str | None, version: str | None) -> dict[str, Any]:
    """Tell what a version did, all loaded versions of a model, or of all models, where none is named.

    Raises UnknownModel, NotReady.
    """
    if model is None:
        served = list(models)
    elif version is None:
        models.version(model, None)
        served = [models.version(model, name) for name in models.versions_of(model)]
    else:
        served = [models.version(model, version)]
    return {"model_stats": [one.metrics.statistics() for one in served]}
