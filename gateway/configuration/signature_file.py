"""A learned signature as a file: versioned JSON, so that a later release tells what it cannot read from what it can."""

import hashlib
from typing import Annotated, Final, Literal

import msgspec

from contracts.manifest import TENSORS_MAX, Input, ManifestError, Name, Output, check_tensors
from gateway.model_signature import ModelSignature
from gateway.routes_file import BATCH_ROWS_CEILING, VersionRoute

FORMAT: Final = 1


class SignatureFileError(ValueError):
    """A file holds no signature, or not the one that was asked for; the message says why."""


class _SignatureFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    format: Literal[1]
    route_sha256: str
    """Of what the route said of server and signature when this was learned."""

    model: Name
    version: Name
    inputs: Annotated[tuple[Input, ...], msgspec.Meta(min_length=1, max_length=TENSORS_MAX)]
    outputs: Annotated[tuple[Output, ...], msgspec.Meta(min_length=1, max_length=TENSORS_MAX)]
    batch_rows_max: Annotated[int, msgspec.Meta(ge=1, le=BATCH_ROWS_CEILING)]
    server_model: Name
    server_version: Name | None
    binary: bool


class _Format(msgspec.Struct):
    format: int


def signature_file(model: str, version: str) -> str:
    """Name the file, relative to the state directory. The names are checked ones, safe in a path."""
    return f"signatures/{model}/{version}.json"


def encode_signature(signature: ModelSignature, route: VersionRoute) -> bytes:
    """Encode what was learned under a route."""
    file = _SignatureFile(
        format=FORMAT,
        route_sha256=_hash_of(route),
        model=signature.model,
        version=signature.version,
        inputs=signature.inputs,
        outputs=signature.outputs,
        batch_rows_max=signature.batch_rows_max,
        server_model=signature.server_model,
        server_version=signature.server_version,
        binary=signature.binary,
    )
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


def decode_signature(data: bytes, model: str, version: str, route: VersionRoute) -> ModelSignature:
    """Decode and check. Raises SignatureFileError, also where it was learned under another route."""
    try:
        known = msgspec.json.decode(data, type=_Format).format
        if known != FORMAT:
            raise SignatureFileError(f"format {known} is not known here; {FORMAT} is")
        file = msgspec.json.decode(data, type=_SignatureFile)
        check_tensors(file.inputs, file.outputs)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ManifestError) as error:
        raise SignatureFileError(f"no signature: {error}") from error
    if (file.model, file.version) != (model, version):
        raise SignatureFileError(f"it is of {file.model}@{file.version}")
    if file.route_sha256 != _hash_of(route):
        raise SignatureFileError("the route says something else of `server` or `signature` than when it was learned")
    return ModelSignature(
        model=model,
        version=version,
        inputs=file.inputs,
        outputs=file.outputs,
        batch_rows_max=file.batch_rows_max,
        server_model=file.server_model,
        server_version=file.server_version,
        binary=file.binary,
    )


def _hash_of(route: VersionRoute) -> str:
    # Not of the workers: where they are changes nothing of what they serve.
    return hashlib.sha256(msgspec.json.encode((route.server, route.signature))).hexdigest()
