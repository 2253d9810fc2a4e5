"""Read a manifest's `parameters`, the settings of its runtime."""

from typing import TypeVar

import msgspec

from contracts.manifest import Manifest
from model_workers.errors import ModelMismatch

T = TypeVar("T")


def read_parameters(manifest: Manifest, expected: type[T]) -> T:
    """Convert `manifest.parameters` to the runtime's own struct. Raises ModelMismatch, which names the setting."""
    try:
        return msgspec.convert(manifest.parameters, expected)
    except msgspec.ValidationError as error:
        raise ModelMismatch(
            manifest.model, manifest.version, f"parameters of runtime {manifest.runtime!r}: {error}"
        ) from error
