"""What the data path knows of one version: its tensors, and how the server behind it names and carries them."""

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.manifest import Input, Manifest, Output


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSignature:
    """One version as clients know it (`model`, `version`) and as its server does."""

    model: str
    version: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    """`source` is the server's own name of an output, `column` the one that is left of a matrix that it sends."""

    batch_rows_max: int
    server_model: str
    server_version: str | None
    """None: no version in the URL."""

    binary: bool
    """Whether tensors go as raw bytes; else as JSON."""

    @property
    def path(self) -> str:
        """The version's path on its server."""
        version = "" if self.server_version is None else f"/versions/{self.server_version}"
        return f"/v2/models/{self.server_model}{version}"

    @property
    def label(self) -> str:
        """`model@version`, for people."""
        return f"{self.model}@{self.version}"


def signature_of(manifest: Manifest) -> ModelSignature:
    """Return the signature of a version on a worker of ours, which narrows and renames outputs by itself."""
    return ModelSignature(
        model=manifest.model,
        version=manifest.version,
        inputs=manifest.inputs,
        outputs=tuple(Output(output.name, output.dtype, output.shape) for output in manifest.outputs),
        batch_rows_max=manifest.batch_rows_max,
        server_model=manifest.model,
        server_version=manifest.version,
        binary=True,
    )


def takes_features(inputs: Sequence[Input]) -> bool:
    """Whether rows can be made of features: where no input lists any, callers must send raw tensors."""
    return any(model_input.features for model_input in inputs)
