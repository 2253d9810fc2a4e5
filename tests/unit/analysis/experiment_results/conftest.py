from pathlib import Path

import pytest

from tests.unit.analysis.experiment_results.experiment_logs import ExperimentLogs


@pytest.fixture
def logs(tmp_path: Path) -> ExperimentLogs:
    return ExperimentLogs(tmp_path)
