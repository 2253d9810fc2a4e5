"""What a runtime is: a module with a `load` of this shape, named in the entry point group `sekisho.runtimes`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from contracts.manifest import Manifest

Arrays = dict[str, np.ndarray[Any, Any]]
"""Arrays by tensor name; the first dimension of each counts the same rows. A BYTES tensor is an object array of str."""


class Runtime(Protocol):
    """A loaded model. `infer` may be called from several threads at once."""

    def infer(self, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        """Run the rows of `inputs` (aligned, contiguous) and return at least `outputs`, by the model's own names.

        May raise anything: the caller turns it into the failure of the rows that it sent.
        """
        ...

    def close(self) -> None:
        """Give back what the model holds. No `infer` follows."""
        ...


class Load(Protocol):
    """How a runtime opens a version."""

    def __call__(self, directory: Path, manifest: Manifest) -> Runtime:
        """Open the artifact that `manifest` names in `directory`, whose hash was checked already.

        Raises ModelMismatch where the artifact is not what the manifest declares. May raise anything else where it
        cannot be opened.
        """
        ...
