"""Published models, trained once a session."""

import pytest

from tests.unit.model_workers.published_models import (
    publish_lightgbm_classifier,
    publish_lightgbm_multiclass,
    publish_lightgbm_regression,
    publish_onnx_classifier,
)


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
