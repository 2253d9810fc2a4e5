"""The model manifest: what a published version is, what it eats, what it gives and where it came from.

It lies as `manifest.json` beside the artifact in `REPO/{model}/{version}/`. A worker loads by it, a gateway plans its
feature rows by it, and analysis finds the baseline profile through it.
"""

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from math import prod
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from contracts.datatypes import BYTES, DATATYPES

FILE_NAME: Final = "manifest.json"
MANIFEST_BYTES_MAX = 4 * 1024 * 1024
NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$(?!\n)"
"""Models, versions, variants and experiments: safe in a path, a URL, a metric label and a file name.

`(?!\\n)` because `$` alone allows a newline at the end.
"""

TENSORS_MAX: Final = 64
TENSOR_NAME_CHARACTERS_MAX: Final = 256
TENSOR_DIMENSIONS_MAX: Final = 8
ROW_ELEMENTS_MAX: Final = 1 << 24
"""Elements of one row of one tensor, so that a mistyped shape is told and not allocated."""

_SHA256_PATTERN: Final = r"^[0-9a-f]{64}$(?!\n)"
_RUNTIME_PATTERN: Final = r"^[a-z][a-z0-9_-]{0,31}$(?!\n)"
_OUTPUT_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,63}$(?!\n)"
_WORDS_BY_PATTERN: Final = {
    NAME_PATTERN: "a name of 1 to 128 letters, digits, `_`, `.` and `-` that begins with a letter or digit",
    _SHA256_PATTERN: "64 hexadecimal digits in lower case",
    _RUNTIME_PATTERN: "a name of 1 to 32 lower-case letters, digits, `_` and `-` that begins with a letter",
    _OUTPUT_PATTERN: "a name of 1 to 64 letters, digits and `_` that does not begin with a digit",
}

REQUEST_SOURCE: Final = "request"
"""The view name of a feature reference whose value the caller sends."""

_FEATURE_REFERENCE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}:[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
_HASH_CHUNK_BYTES = 1 << 20

Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
_TensorName = Annotated[str, msgspec.Meta(min_length=1, max_length=TENSOR_NAME_CHARACTERS_MAX)]
_Shape = Annotated[tuple[int, ...], msgspec.Meta(min_length=1, max_length=TENSOR_DIMENSIONS_MAX)]


class ManifestError(ValueError):
    """A manifest is not what it must be; the message says why, for whoever names the file or the sender before it."""


class Artifact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model file, relative to the manifest, and the SHA-256 of its bytes in hexadecimal."""

    file: Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
    sha256: Annotated[str, msgspec.Meta(pattern=_SHA256_PATTERN)]


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One input tensor. `shape` is `[-1, columns]` or `[-1]`: the first dimension counts rows.

    `features` are its columns in order: `view:feature` from the feature store, `request:name` from the caller. A
    feature that is a list takes as many columns as it is long. Empty: the model takes raw tensors only.
    """

    name: _TensorName
    dtype: str
    shape: _Shape
    features: tuple[str, ...] = ()


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One selected output, under the name by which clients and the prediction log know it.

    `source` is the model's own name for it (left out: the same name). `column` narrows a matrix to one column, the
    positive class say, so that one number a row is left.
    """

    name: Annotated[str, msgspec.Meta(pattern=_OUTPUT_PATTERN)]
    dtype: str
    shape: _Shape = (-1,)
    source: Annotated[str, msgspec.Meta(max_length=TENSOR_NAME_CHARACTERS_MAX)] = ""
    column: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Lineage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the version came from. `data_fingerprint` names the training data, `metrics` what it scored there."""

    data_fingerprint: str = ""
    rows: int = 0
    code_revision: str = ""
    metrics: dict[str, float] = {}


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A published model version. Immutable: a change is a new version."""

    model: Name
    version: Name
    runtime: Annotated[str, msgspec.Meta(pattern=_RUNTIME_PATTERN)]
    artifact: Artifact
    inputs: Annotated[tuple[Input, ...], msgspec.Meta(min_length=1, max_length=TENSORS_MAX)]
    outputs: Annotated[tuple[Output, ...], msgspec.Meta(min_length=1, max_length=TENSORS_MAX)]
    created_at: str
    """RFC 3339 with its offset; empty where it is not known."""

    format: int = 1
    batch_rows_max: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 1_024
    """The most rows of one execution; 1 for a model that cannot batch."""

    lineage: Lineage = Lineage()
    baseline_profile: str = ""
    """Path of the training data's profile, relative to the manifest; empty where there is none."""

    warm_up: str = ""
    """Path of recorded requests to warm the version with, relative to the manifest; empty: rows are generated."""

    parameters: dict[str, Any] = {}
    """Settings of the runtime (threads, execution providers)."""


def decode_manifest(data: bytes) -> Manifest:
    """Decode and check a manifest. Raises ManifestError."""
    if len(data) > MANIFEST_BYTES_MAX:
        raise ManifestError(f"a manifest of more than {MANIFEST_BYTES_MAX} bytes is not read")
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(f"no valid manifest: {_in_words(str(error))}") from error
    _check(manifest)
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    """Encode a manifest as indented JSON, fields in the order of the type.

    Raises ManifestError where it is not valid.
    """
    try:
        encoded = msgspec.json.encode(manifest)
    except (TypeError, UnicodeEncodeError, RecursionError, OverflowError) as error:
        raise ManifestError(f"no valid manifest: {error}") from error
    decode_manifest(encoded)  # a Struct is not checked when it is made; what nobody could load must not be published
    return msgspec.json.format(encoded, indent=2) + b"\n"


def sha256_of(path: Path) -> str:
    """Hash a file of any size. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def feature_reference(reference: str) -> tuple[str, str]:
    """Split `view:feature`. Raises ManifestError."""
    if not _FEATURE_REFERENCE.match(reference):
        raise ManifestError(f"{reference!r} is not a feature reference: write view:feature or request:name")
    view, _, feature = reference.partition(":")
    return view, feature


def _in_words(problem: str) -> str:
    """Say what a name may be in the place of the expression that it was matched with."""
    for pattern, words in _WORDS_BY_PATTERN.items():
        problem = problem.replace(f"`str` matching regex {pattern!r}", words)
    return problem


def _check(manifest: Manifest) -> None:
    if manifest.format != 1:
        raise ManifestError(f"manifest format {manifest.format} is not known here; 1 is")
    check_tensors(manifest.inputs, manifest.outputs)
    _check_created_at(manifest.created_at)
    _check_path("baseline_profile", manifest.baseline_profile)
    _check_path("warm_up", manifest.warm_up)


def check_tensors(inputs: Sequence[Input], outputs: Sequence[Output]) -> None:
    """Check what a model is declared to take and to give, as a whole. Raises ManifestError, which names the tensor."""
    for kind, names in (("input", [i.name for i in inputs]), ("output", [o.name for o in outputs])):
        for name in names:
            if names.count(name) > 1:
                raise ManifestError(f"{kind} {name!r} is listed more than once")
    tensors: list[Input | Output] = [*inputs, *outputs]
    for tensor in tensors:
        _check_tensor(tensor)
    for output in outputs:
        if output.column is not None and output.shape != (-1,):
            raise ManifestError(f"output {output.name!r} is narrowed to one column, so its shape is [-1]")
        if output.dtype == BYTES and output.column is not None:
            raise ManifestError(f"output {output.name!r}: a BYTES output cannot be narrowed")
    for given in inputs:
        for reference in given.features:
            feature_reference(reference)


def _check_tensor(tensor: Input | Output) -> None:
    if tensor.dtype not in DATATYPES:
        known = ", ".join(sorted(DATATYPES))
        raise ManifestError(f"{tensor.name!r}: unknown dtype {tensor.dtype[:32]!r}; known: {known}")
    if tensor.shape[0] != -1 or any(d == 0 or d < -1 for d in tensor.shape):
        raise ManifestError(
            f"{tensor.name!r}: shape {list(tensor.shape)} must begin with -1, the rows; 0 is no dimension"
        )
    if prod(abs(dimension) for dimension in tensor.shape) > ROW_ELEMENTS_MAX:
        raise ManifestError(
            f"{tensor.name!r}: a row of shape {list(tensor.shape)} has more than {ROW_ELEMENTS_MAX} elements"
        )


def _check_created_at(created_at: str) -> None:
    if not created_at:
        return
    try:
        moment = datetime.fromisoformat(created_at)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ManifestError(f"created_at {created_at[:64]!r} is not a time with its offset (2026-10-31T09:00:00Z)")


def _check_path(field: str, path: str) -> None:
    parts = path.split("/")
    if path and (any(part in ("", ".", "..") for part in parts) or "\\" in path or not path.isprintable()):
        raise ManifestError(f"{field} {path[:64]!r} must be a plain path below the manifest's directory")
