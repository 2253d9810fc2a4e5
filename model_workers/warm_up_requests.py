"""Recorded requests that a version is warmed with, so that its first callers meet paths that real rows have taken.

The file that `warm_up` of a manifest names is an array of inference requests in the protocol's JSON form, or one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from contracts.inference import InferenceFormatError, decode_request
from contracts.manifest import Manifest
from model_workers.errors import InputRefused, RepositoryError, RequestTooLarge
from model_workers.request_rows import RowReader, Rows
from model_workers.runtimes.protocol import Arrays
from model_workers.version_files import read_file

FILE_BYTES_MAX: Final = 16 * 1024 * 1024
REQUESTS_MAX: Final = 1_024
REQUEST_ROWS_MAX: Final = 16_384

_requests = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, slots=True)
class WarmUpRequest:
    """One recorded request, checked against the manifest."""

    rows: Rows
    outputs: tuple[str, ...]


def read_warm_up_requests(directory: Path, manifest: Manifest) -> list[WarmUpRequest]:
    """Read a version's recorded requests; none where its manifest names no file.

    Raises RepositoryError, which says which request is wrong and why.
    """
    if not manifest.warm_up:
        return []
    path = directory / manifest.warm_up
    bodies = _bodies(path, _read(path))
    reader = RowReader(manifest, REQUEST_ROWS_MAX)
    return [_request(path, number, len(bodies), body, reader) for number, body in enumerate(bodies, 1)]


def tiled(requests: Sequence[WarmUpRequest], rows: int) -> Arrays:
    """Repeat the recorded rows to so many. Where requests differ in shape, those like the first one are taken."""
    alike = [request.rows for request in requests if request.rows.signature == requests[0].rows.signature]
    arrays = {name: np.concatenate([one.arrays[name] for one in alike]) for name in alike[0].arrays}
    return {name: array[np.arange(rows) % len(array)] for name, array in arrays.items()}


def _read(path: Path) -> bytes:
    try:
        _, data = read_file(path, FILE_BYTES_MAX)
    except OSError as error:
        raise RepositoryError(path, f"the warm-up requests cannot be read: {error.strerror}") from error
    return data


def _bodies(path: Path, data: bytes) -> list[bytes]:
    try:
        bodies = [data] if data.lstrip()[:1] == b"{" else [bytes(raw) for raw in _requests.decode(data)]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RepositoryError(path, f"is no JSON array of inference requests: {error}") from error
    if not 1 <= len(bodies) <= REQUESTS_MAX:
        raise RepositoryError(path, f"holds {len(bodies)} warm-up requests; give 1 to {REQUESTS_MAX}")
    return bodies


def _request(path: Path, number: int, count: int, body: bytes, reader: RowReader) -> WarmUpRequest:
    try:
        request = decode_request(body, None)
        return WarmUpRequest(reader.rows(request.inputs), reader.outputs(request.outputs))
    except (InferenceFormatError, InputRefused, RequestTooLarge) as error:
        raise RepositoryError(path, f"warm-up request {number} of {count}: {error}") from error
