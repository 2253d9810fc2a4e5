"""The benchmark's log, a twentieth of it."""

from analysis.assignment_replay import replay
from tests.benchmarks.assignment_replay import HISTORY, REVISIONS, change_one_row, write_log


def test_fifty_thousand_rows_of_ten_revisions_are_explained_and_one_changed_row_is_the_one_mismatch(tmp_path):
    write_log(tmp_path, rows=50_000, units=5_000)
    report = replay(tmp_path, [tmp_path / HISTORY], threads=2)
    assert (report.rows, report.mismatches) == (50_000, 0)
    assert len(report.revisions) == len(REVISIONS) == 10
    assert report.decisions < report.rows
    assert {"split", "not_enrolled", "override", "held_out", "winner"} == set(report.rows_by_reason)
    changed = change_one_row(tmp_path)
    again = replay(tmp_path, [tmp_path / HISTORY], threads=2)
    assert again.mismatches == 1
    ((example,),) = [one.examples for one in again.mismatch_classes]
    assert example.prediction_id == changed
