"""Learn what a version takes and gives: from its route, else from its worker's manifest, else from its metadata."""

import asyncio
from dataclasses import replace
from typing import Annotated, Final

import msgspec

from contracts.manifest import Input, ManifestError, Output, check_tensors, decode_manifest
from gateway.dispatch.worker_connection import ConnectionLost, WorkerAnswer
from gateway.dispatch.worker_pool import WorkerPool
from gateway.model_signature import ModelSignature, signature_of
from gateway.routes_file import BATCH_ROWS_DEFAULT, VersionRoute

ANSWER_TIMEOUT_S: Final = 1.0
BINARY_EXTENSIONS: Final = frozenset({"binary_tensor_data", "binary_data"})
"""What servers call the binary tensor extension; Triton the first, the specification's page the second."""


class NotDescribed(Exception):
    """Nobody says what the version takes and gives; the message tells what was asked and what to do."""


class _TensorMetadata(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]


class _ModelMetadata(msgspec.Struct):
    inputs: Annotated[list[_TensorMetadata], msgspec.Meta(max_length=256)] = []
    outputs: Annotated[list[_TensorMetadata], msgspec.Meta(max_length=256)] = []


class _ServerMetadata(msgspec.Struct):
    extensions: list[str] = []


async def describe(pool: WorkerPool, model: str, version: str, route: VersionRoute) -> ModelSignature:
    """Return the version's signature. Raises NotDescribed, or ManifestError where what is told is no valid model."""
    server_model = route.server.model or model
    server_version = version if route.server.version is msgspec.UNSET else route.server.version
    declared = route.signature
    if declared is None:
        answer = await _ask(pool, f"/v2/models/{model}/versions/{version}/manifest") if _is_ours(route) else None
        if answer is not None and answer.status == 200:
            manifest = decode_manifest(answer.body)
            if (manifest.model, manifest.version) != (model, version):
                raise NotDescribed(f"the worker's manifest is that of {manifest.model}@{manifest.version}")
            return signature_of(manifest)
        if answer is not None and answer.status != 404:
            raise NotDescribed(f"the worker answers {answer.status}: {_shown(answer)}")
    signature = ModelSignature(
        model=model,
        version=version,
        inputs=declared.inputs if declared else (),
        outputs=declared.outputs if declared else (),
        batch_rows_max=declared.batch_rows_max if declared else BATCH_ROWS_DEFAULT,
        server_model=server_model,
        server_version=server_version,
        binary=False,
    )
    if declared is None:
        signature = await _with_metadata(pool, signature)
    binary = route.server.binary if route.server.binary is not None else await _takes_binary(pool)
    return replace(signature, binary=binary)


def _is_ours(route: VersionRoute) -> bool:
    # Under other names it can only be another server, whose 404 would be asked for in vain.
    return route.server.model is None and route.server.version is msgspec.UNSET


async def _with_metadata(pool: WorkerPool, signature: ModelSignature) -> ModelSignature:
    answer = await _ask(pool, signature.path)
    if answer.status != 200:
        raise NotDescribed(f"{signature.path}: the worker answers {answer.status}: {_shown(answer)}")
    try:
        metadata = msgspec.json.decode(answer.body, type=_ModelMetadata)
        inputs = tuple(Input(i.name, i.datatype, tuple(i.shape)) for i in metadata.inputs)
        outputs = tuple(Output(o.name, o.datatype, tuple(o.shape)) for o in metadata.outputs)
        check_tensors(inputs, outputs)
        problem = "" if inputs and outputs else "it names no inputs or no outputs"
    except (msgspec.MsgspecError, UnicodeDecodeError, ManifestError) as error:
        problem = str(error)
    if problem:
        raise NotDescribed(
            f"the worker has no manifest, and what it tells at {signature.path} is not enough ({problem}): "
            f"give versions.{signature.version}.signature in the route"
        )
    return replace(signature, inputs=inputs, outputs=outputs)


async def _takes_binary(pool: WorkerPool) -> bool:
    answer = await _ask(pool, "/v2")
    try:
        metadata = msgspec.json.decode(answer.body, type=_ServerMetadata)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return answer.status == 200 and not BINARY_EXTENSIONS.isdisjoint(metadata.extensions)


async def _ask(pool: WorkerPool, path: str) -> WorkerAnswer:
    chosen = pool.pick()
    if chosen is None:
        raise NotDescribed("none of its workers can be reached")
    replica, connection = chosen
    answered: asyncio.Future[WorkerAnswer | ConnectionLost] = asyncio.get_running_loop().create_future()
    request = b"GET %b HTTP/1.1\r\nhost: %b\r\naccept: application/json\r\n\r\n"
    connection.exchange(
        [request % (path.encode(), replica.host_header)],
        lambda answer: None if answered.done() else answered.set_result(answer),
    )
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            answer = await answered
    except TimeoutError:
        connection.abort("no answer in time")
        raise NotDescribed(f"{replica.url}{path}: no answer within {ANSWER_TIMEOUT_S:g} s") from None
    if isinstance(answer, ConnectionLost):
        raise NotDescribed(f"{replica.url}{path}: {answer}")
    return answer


def _shown(answer: WorkerAnswer) -> str:
    return answer.body[:200].decode("utf-8", "replace")
