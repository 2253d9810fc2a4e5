"""Inference requests of one row in the Open Inference Protocol v2, and whether their answers are right."""

import struct
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from loadtests.answer_check import TOLERANCE
from loadtests.http_connection import Response
from loadtests.request_head import request_head

INPUT = "features"
_FLOAT = struct.Struct("<f")


class _Output(msgspec.Struct):
    data: list[float]


class _Answer(msgspec.Struct):
    outputs: list[_Output]


def infer_request(path: str, row: np.ndarray[Any, np.dtype[np.float32]], identity: bytes, *, binary: bool) -> bytes:
    """One whole HTTP request for a row. identity: as in `request_head`.

    binary: the row as raw bytes, and the output asked for in the same form.
    """
    tensor: dict[str, Any] = {"name": INPUT, "datatype": "FP32", "shape": [1, len(row)]}
    if binary:
        tensor["parameters"] = {"binary_data_size": row.nbytes}
        document = msgspec.json.encode({"inputs": [tensor], "parameters": {"binary_data_output": True}})
        body = document + row.tobytes()
        kind = f"application/octet-stream\r\ninference-header-content-length: {len(document)}"
    else:
        # As short as a float32 can be written, which is what clients send.
        tensor["data"] = [float(str(value)) for value in row]
        body, kind = msgspec.json.encode({"inputs": [tensor]}), "application/json"
    return request_head(path, kind, len(body), identity) + body


class InferCheck:
    """Checks that each answer is the offline value of its row.

    expected: request -> offline value. binary: the answer ends with its one FP32 element.
    """

    def __init__(self, expected: Sequence[float], *, binary: bool) -> None:
        self._expected = expected
        self._value = _raw_value if binary else _json_value

    def problem(self, request: int, response: Response) -> str | None:
        """Say what is wrong with an answer; None where it is right."""
        if response.status != 200:
            return f"status {response.status}"
        try:
            got = self._value(response.body)
        except (msgspec.MsgspecError, struct.error, ValueError) as error:
            return f"not an inference: {error}"
        # Written so that a NaN is wrong too.
        if not abs(got - self._expected[request]) <= TOLERANCE:
            return f"row {request}: {got}, offline {self._expected[request]}"
        return None

    def units_by_version(self) -> dict[str, int]:
        """Nothing: rows have no unit."""
        return {}


_decode = msgspec.json.Decoder(_Answer).decode


def _json_value(body: bytes) -> float:
    ((value,),) = (output.data for output in _decode(body).outputs)
    return value


def _raw_value(body: bytes) -> float:
    value: float = _FLOAT.unpack(body[-_FLOAT.size :])[0]
    return value
