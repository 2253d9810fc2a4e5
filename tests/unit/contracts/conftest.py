from pathlib import Path

import pytest


@pytest.fixture
def golden() -> Path:
    """Files that were written once and must stay readable for ever."""
    return Path(__file__).parents[2] / "golden"
