import pytest

from tests.unit.k8s.deployment_files import Workload, workloads


@pytest.fixture
def workload(request) -> Workload:
    """The Deployment whose name the test is parametrized with."""
    return next(w for w in workloads() if w.name == request.param)
