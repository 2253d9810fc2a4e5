"""LightGBM models in their native text form, on LightGBM's C library alone.

The Python package would cost a worker its imports (SciPy, pandas and scikit-learn where installed) and four times the
library's own time on a single row: 43 µs in `Booster.predict` against 9 µs in the single-row fast entry, for 100 trees
of 31 leaves over 50 features. So only the shared library that the package carries is loaded, and of a model nothing but
its trees: the categories of a pandas data frame, which the Python package would map to their codes, are not read.

Source of the calls: LightGBM's `include/LightGBM/c_api.h`.
"""

import ctypes
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Final

import msgspec
import numpy as np

from contracts.datatypes import FLOATS
from contracts.manifest import Manifest
from model_workers.errors import ModelMismatch
from model_workers.runtimes.lightgbm_text import LightGbmTextError, check_text
from model_workers.runtimes.parameters import read_parameters
from model_workers.runtimes.protocol import Arrays
from model_workers.version_files import read_artifact

THREADS_MAX = 64

LIBRARY_FILE: Final = "lib_lightgbm.so"
PREDICT_NORMAL: Final = 0
PREDICT_RAW_SCORE: Final = 1
ALL_TREES: Final = -1
ROW_MAJOR: Final = 1
C_TYPE_BY_DTYPE: Final = {np.dtype(np.float32): 0, np.dtype(np.float64): 1}

_SIGNATURES: Final[dict[str, tuple[Any, ...]]] = {
    "LGBM_BoosterLoadModelFromString": (ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p),
    "LGBM_BoosterGetNumFeature": (ctypes.c_void_p, ctypes.c_void_p),
    "LGBM_BoosterCalcNumPredict": (
        *(ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int),
        ctypes.c_void_p,
    ),
    "LGBM_BoosterPredictForMat": (
        *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int32, ctypes.c_int32, ctypes.c_int),
        *(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p),
    ),
    "LGBM_BoosterPredictForMatSingleRowFastInit": (
        *(ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int32),
        *(ctypes.c_char_p, ctypes.c_void_p),
    ),
    "LGBM_BoosterPredictForMatSingleRowFast": (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p),
    "LGBM_FastConfigFree": (ctypes.c_void_p,),
    "LGBM_BoosterFree": (ctypes.c_void_p,),
}


class LightGbmError(Exception):
    """LightGBM's library refused a call; the message is its own."""


class LightGbmParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`threads`: within one execution of many rows. `raw_score`: the sum of the leaves, before sigmoid or softmax."""

    threads: Annotated[int, msgspec.Meta(ge=1, le=THREADS_MAX)] = 1
    raw_score: bool = False


class LightGbmModel:
    """A loaded booster. Multiclass models answer (rows, classes), all others (rows,), in float64.

    text: the model, as `check_text` passed it.
    dtype: of the rows, float32 or float64. The thresholds of the trees are float64 in any case.
    """

    def __init__(self, text: bytes, *, dtype: np.dtype[Any], parameters: LightGbmParameters) -> None:
        self._library = _Library(_library_path())
        self._dtype = dtype
        self._c_type = C_TYPE_BY_DTYPE[dtype]
        self._kind = PREDICT_RAW_SCORE if parameters.raw_score else PREDICT_NORMAL
        self._settings = f"num_threads={parameters.threads} verbosity=-1".encode()
        self._booster = ctypes.c_void_p()
        self._row_plan = ctypes.c_void_p()
        trees, columns, values = ctypes.c_int(), ctypes.c_int(), ctypes.c_int64()
        call = self._library.call
        call("LGBM_BoosterLoadModelFromString", text, ctypes.byref(trees), ctypes.byref(self._booster))
        call("LGBM_BoosterGetNumFeature", self._booster, ctypes.byref(columns))
        call("LGBM_BoosterCalcNumPredict", self._booster, 1, self._kind, 0, ALL_TREES, ctypes.byref(values))
        self.columns, self._values_per_row = columns.value, values.value
        call(
            *("LGBM_BoosterPredictForMatSingleRowFastInit", self._booster, self._kind, 0, ALL_TREES),
            *(self._c_type, self.columns, self._settings, ctypes.byref(self._row_plan)),
        )
        # The plan of the single-row entry owns buffers that two threads must not fill at once.
        self._row_lock = Lock()
        self._length = ctypes.c_int64()

    def infer(self, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        """Predict. The model's one output has no name of its own, so each asked name is given it."""
        (matrix,) = inputs.values()
        matrix = np.ascontiguousarray(matrix, dtype=self._dtype)
        answer = self._one_row(matrix) if len(matrix) == 1 else self._rows(matrix)
        if self._values_per_row > 1:
            answer = answer.reshape(len(matrix), self._values_per_row)
        return dict.fromkeys(outputs, answer)

    def close(self) -> None:
        """Free the booster."""
        self._library.call("LGBM_FastConfigFree", self._row_plan)
        self._library.call("LGBM_BoosterFree", self._booster)

    def _one_row(self, row: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        answer = np.empty(self._values_per_row)
        with self._row_lock:
            self._library.call(
                *("LGBM_BoosterPredictForMatSingleRowFast", self._row_plan, row.ctypes.data),
                *(ctypes.byref(self._length), answer.ctypes.data),
            )
        return answer

    def _rows(self, matrix: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        rows, columns = matrix.shape
        answer = np.empty(rows * self._values_per_row)
        length = ctypes.c_int64()
        self._library.call(
            *("LGBM_BoosterPredictForMat", self._booster, matrix.ctypes.data, self._c_type, rows, columns, ROW_MAJOR),
            *(self._kind, 0, ALL_TREES, self._settings, ctypes.byref(length), answer.ctypes.data),
        )
        return answer


class _Library:
    """LightGBM's shared library; `call` raises LightGbmError where a call says that it failed."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        library.LGBM_GetLastError.restype = ctypes.c_char_p
        self._last_error = library.LGBM_GetLastError
        self._functions = {}
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes = arguments
            self._functions[name] = function

    def call(self, name: str, *arguments: Any) -> None:
        if self._functions[name](*arguments) != 0:
            raise LightGbmError(self._last_error().decode("utf-8", "replace"))


def load(directory: Path, manifest: Manifest) -> LightGbmModel:
    """Open `manifest`'s artifact and check that it takes the one declared input.

    Raises ModelMismatch, LightGbmError where LightGBM refuses the artifact, ImportError where it is not installed.
    """
    parameters = read_parameters(manifest, LightGbmParameters)
    if len(manifest.inputs) != 1 or len(manifest.inputs[0].shape) != 2:
        raise _mismatch(manifest, "a LightGBM model takes one input of shape [-1, columns]")
    entry = manifest.inputs[0]
    if entry.dtype not in FLOATS:
        raise _mismatch(
            manifest, f"input {entry.name!r} is {entry.dtype}; a LightGBM model takes FP32 or FP64, categories as codes"
        )
    text = read_artifact(directory, manifest)
    try:
        check_text(text)
    except LightGbmTextError as error:
        raise _mismatch(manifest, f"{manifest.artifact.file}: {error}") from error
    dtype = np.dtype(np.float64 if entry.dtype == "FP64" else np.float32)
    model = LightGbmModel(text, dtype=dtype, parameters=parameters)
    if entry.shape[1] != model.columns:
        columns = model.columns
        model.close()
        raise _mismatch(
            manifest, f"input {entry.name!r} has {entry.shape[1]} columns in the manifest, {columns} in the model"
        )
    return model


def _library_path() -> Path:
    spec = find_spec("lightgbm")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'lightgbm'", name="lightgbm")
    return Path(spec.submodule_search_locations[0]) / "lib" / LIBRARY_FILE


def _mismatch(manifest: Manifest, problem: str) -> ModelMismatch:
    return ModelMismatch(manifest.model, manifest.version, problem)
