"""The demo's data: 569 patients with a breast mass, thirty measurements each, and the diagnosis.

Source: Breast Cancer Wisconsin (Diagnostic), Street, Wolberg and Mangasarian, 1993; it ships with scikit-learn. Each of
ten measurements of the cell nuclei comes as a mean, a standard error and a worst value: three groups, three feature
views.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

VIEWS: Final = ("patient_mean", "patient_error", "patient_worst")
MEASUREMENTS: Final = (
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave_points",
    "symmetry",
    "fractal_dimension",
)
REFERENCES: Final = tuple(f"{view}:{measurement}" for view in VIEWS for measurement in MEASUREMENTS)
"""The thirty features in the order of the data's columns, which is the order in which both models were trained."""

HELD_OUT_SHARE: Final = 0.5
SEED: Final = 13

SHIFTED: Final = ("radius", "perimeter", "area")
SHIFT: Final = 1.15
"""What happens half-way: a microscope is set 15 % too large. Lengths grow by that, and areas by its square."""


@dataclass(frozen=True, slots=True)
class Patients:
    """The data, split. Arrays are (patients, 30) of float32 and (patients,) of 0 and 1; 1 is malignant."""

    features: NDArray[np.float32]
    malignant: NDArray[np.int64]
    training: NDArray[np.int64]
    """Row numbers of the patients that the models learn from."""

    held_out: NDArray[np.int64]
    """Row numbers of those that become traffic."""

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Name patients: `p0` … `p568`."""
        return [f"p{row}" for row in rows]


def read_patients() -> Patients:
    """Read and split the data, always in the same way."""
    data: Any = load_breast_cancer()
    malignant = 1 - data.target.astype(np.int64)  # scikit-learn codes benign as 1
    training, held_out = train_test_split(
        np.arange(len(malignant)), test_size=HELD_OUT_SHARE, random_state=SEED, stratify=malignant
    )
    return Patients(data.data.astype(np.float32), malignant, np.sort(training), np.sort(held_out))


def shifted(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the measurements as the badly set microscope gives them."""
    wrong = features.copy()
    for column, reference in enumerate(REFERENCES):
        measurement = reference.partition(":")[2]
        if measurement in SHIFTED:
            wrong[:, column] *= SHIFT**2 if measurement == "area" else SHIFT
    return wrong


def view_tables(ids: list[str], features: NDArray[np.float32], event_time_us: int) -> dict[str, pa.Table]:
    """Make one table a feature view, as `sekisho-features load` reads them."""
    tables = {}
    for index, view in enumerate(VIEWS):
        block = features[:, index * len(MEASUREMENTS) : (index + 1) * len(MEASUREMENTS)]
        columns: dict[str, Any] = {"patient": ids}
        columns["event_time"] = pa.array(np.full(len(ids), event_time_us), pa.int64()).cast(
            pa.timestamp("us", tz="UTC")
        )
        columns |= {name: np.ascontiguousarray(block[:, i]) for i, name in enumerate(MEASUREMENTS)}
        tables[view] = pa.table(columns)
    return tables
