from pathlib import Path

import pytest

from analysis.assignment_replay import ReplayReport, replay
from tests.unit.analysis.assignment_replay.logged_history import RegisterHistory, Rows


class Place:
    """A folder with a history and a log."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.history, self.rows = RegisterHistory(), Rows()

    def replay(self, **columns) -> ReplayReport:
        """Write both, and replay. columns: what the log has besides the fixed ones."""
        self.rows.write(self.root, **columns)
        return self.again()

    def again(self, **window) -> ReplayReport:
        """Replay what was written, with the history as it is now."""
        audit = self.history.write(self.root / "audit.jsonl")
        return replay(self.root, [audit], threads=1, **window)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def found(report: ReplayReport) -> dict[str, int]:
    """Count mismatches by class."""
    return {one.name: one.count for one in report.mismatch_classes}
