"""Name a table by its content, whatever the order of its rows."""

import hashlib
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def column_digest(name: str, column: pa.ChunkedArray) -> bytes:
    """SHA-256 over a column's name, type, length and sorted values. Types: numbers, bools, text; NaN counts as null."""
    digest = hashlib.sha256(f"{name}\0{column.type}\0{len(column)}\0".encode())
    if pa.types.is_floating(column.type):
        values = column.cast(pa.float64()).to_numpy()
        # Adding zero makes -0.0 equal to 0.0 in bytes too, as it is in order.
        digest.update(np.sort(values[~np.isnan(values)] + 0.0).tobytes())
        return digest.digest()
    counted = pc.value_counts(column.drop_null())
    pairs = zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True)
    for value, count in sorted(pairs):
        digest.update(f"{value!r}\0{count}\0".encode())
    return digest.digest()


def table_fingerprint(digests: Mapping[str, bytes]) -> str:
    """SHA-256, in hexadecimal, over the digests of columns in the order of their names."""
    whole = hashlib.sha256()
    for name in sorted(digests):
        whole.update(digests[name])
    return whole.hexdigest()
