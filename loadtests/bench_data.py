"""The data that every stack serves: users, their features, and where models and offline values lie."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loadtests.rank_data import RANK_MODEL, RANK_VERSION

USERS = 10_000
FEATURES = 50
SEED = 20_260_101

MODEL = "bench"
VIEW = "user_profile"
TREATMENT_BP = 1_000
"""Basis points of users whom version "2" answers."""

ONNX_VERSION, LIGHTGBM_VERSION = "1", "2"


@dataclass(frozen=True, slots=True)
class BenchData:
    """Where the data lies. `expected_file`: (2, users) float64, the offline values of versions "1" and "2"."""

    directory: Path

    @property
    def repository(self) -> Path:
        """The model repository: `bench/1/model.onnx`, `bench/2/model.txt`."""
        return self.directory / "models"

    @property
    def onnx_file(self) -> Path:
        """Version 1."""
        return self.repository / MODEL / ONNX_VERSION / "model.onnx"

    @property
    def lightgbm_file(self) -> Path:
        """Version 2."""
        return self.repository / MODEL / LIGHTGBM_VERSION / "model.txt"

    @property
    def rows_file(self) -> Path:
        """Every user's features, for loading."""
        return self.directory / "users.parquet"

    @property
    def items_file(self) -> Path:
        """Every item's features, for loading."""
        return self.directory / "items.parquet"

    @property
    def views_file(self) -> Path:
        """The declaration of both feature views."""
        return self.directory / "features.yaml"

    @property
    def expected_file(self) -> Path:
        """The offline values."""
        return self.directory / "expected.npy"

    @property
    def rank_file(self) -> Path:
        """The ranking model, which is in no experiment."""
        return self.repository / RANK_MODEL / RANK_VERSION / "model.onnx"

    @property
    def rank_expected_file(self) -> Path:
        """(users, items) float64: the offline value of each pair of `ranked_items`."""
        return self.directory / "rank-expected.npy"

    @property
    def experiments_file(self) -> Path:
        """The 90/10 split."""
        return self.directory / "experiments.yaml"

    def rows(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """(users, features) float32, as loaded."""
        return features(USERS)


def features(users: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(users, FEATURES) float32, the same on every machine."""
    return np.random.default_rng(SEED).normal(size=(users, FEATURES)).astype(np.float32)
