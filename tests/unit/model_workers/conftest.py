"""Published models, trained once a session."""

import os

import pytest

from tests.unit.model_workers.published_models import (
    publish_lightgbm_classifier,
    publish_lightgbm_multiclass,
    publish_lightgbm_regression,
    publish_onnx_classifier,
)


@pytest.fixture
def growing(monkeypatch):
    """Return what makes a file one byte longer, once, after its size was taken and before it is read."""

    def let_grow(path):
        fstat, inode = os.fstat, path.stat().st_ino

        def grow(descriptor):
            status = fstat(descriptor)
            if status.st_ino == inode:
                monkeypatch.setattr(os, "fstat", fstat)
                with path.open("ab") as file:
                    file.write(b".")
            return status

        monkeypatch.setattr(os, "fstat", grow)

    return let_grow


@pytest.fixture(scope="session")
def repository(tmp_path_factory):
    return tmp_path_factory.mktemp("repository")


@pytest.fixture(scope="session")
def onnx_classifier(repository):
    return publish_onnx_classifier(repository)


@pytest.fixture(scope="session")
def lightgbm_classifier(repository):
    return publish_lightgbm_classifier(repository)


@pytest.fixture(scope="session")
def lightgbm_multiclass(repository):
    return publish_lightgbm_multiclass(repository)


@pytest.fixture(scope="session")
def lightgbm_regression(repository):
    return publish_lightgbm_regression(repository)
