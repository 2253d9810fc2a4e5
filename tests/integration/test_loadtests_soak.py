import msgspec
import pytest

from loadtests import soak
from loadtests.soak_result import GENERATOR, SoakResult

pytestmark = pytest.mark.integration


def test_a_short_soak_of_real_processes_finds_every_answer_right_and_every_row_in_the_log(tmp_path, monkeypatch):
    monkeypatch.setattr(soak, "RESULTS", tmp_path)
    monkeypatch.setattr(soak, "CHART", tmp_path / "soak.svg")
    monkeypatch.setattr(soak, "PAGE", tmp_path / "page.md")
    (tmp_path / "page.md").write_text("<!-- soak:begin -->\n<!-- soak:end -->\n")
    assert soak.main(["--minutes", "0.05", "--share", "0.3", "--save"]) == 0
    (file,) = tmp_path.glob("*-soak.json")
    result = msgspec.json.decode(file.read_bytes(), type=SoakResult)
    assert result.log.rows_in_files == result.log.answers > result.result.answers_total > 0
    assert result.offered_per_s == pytest.approx(0.3 * result.capacity_per_s)
    assert sum(minute.answers for minute in result.by_minute) == result.result.answers
    assert len(result.samples) >= 4
    assert {"sekisho-gateway", "sekisho-worker-1", "sekisho-worker-2", "redis", GENERATOR} == set(
        result.samples[-1].processes
    )
    offered = [sample.gateway.rows_offered for sample in result.samples]
    assert offered == sorted(set(offered))
    assert "each checked: 0 wrong" in (tmp_path / "page.md").read_text()
    assert (tmp_path / "soak.svg").read_text().startswith("<svg")
