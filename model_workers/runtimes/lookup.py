"""Find a runtime by the name that manifests use."""

from importlib import import_module
from importlib.metadata import entry_points
from typing import Final, cast

from model_workers.errors import RuntimeMissing
from model_workers.runtimes.protocol import Load

ENTRY_POINT_GROUP: Final = "sekisho.runtimes"

BUILT_IN: Final = {
    "onnxruntime": "model_workers.runtimes.onnx",
    "lightgbm": "model_workers.runtimes.lightgbm",
}
"""Known without entry points, so that a worker also runs from a source tree that was never installed."""


def find_runtime(name: str) -> Load:
    """Return the `load` of the runtime called `name`; the library behind it is imported only now.

    Raises RuntimeMissing where the name is unknown, its library is not installed, or its module cannot be imported.
    """
    try:
        if name in BUILT_IN:
            return cast("Load", import_module(BUILT_IN[name]).load)
        for entry_point in entry_points(group=ENTRY_POINT_GROUP, name=name):
            return cast("Load", entry_point.load())
    except ImportError as error:
        raise RuntimeMissing(name, _known(), str(error)) from error
    except Exception as error:  # a module that is anyone's may raise anything while it is imported
        raise RuntimeMissing(name, _known(), f"{type(error).__name__}: {error}") from error
    raise RuntimeMissing(name, _known())


def _known() -> tuple[str, ...]:
    return tuple(sorted({*BUILT_IN, *entry_points(group=ENTRY_POINT_GROUP).names}))
