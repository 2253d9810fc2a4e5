import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

from analysis.errors import UnreadableFile
from analysis.experiment_results import encode_results, experiment_results, read_results
from analysis.experiment_results.page_charts import FOREST_REACH
from analysis.experiment_results.report import SCHEMA_VERSION, ExperimentResults
from analysis.experiment_results.report_sentences import EXPLANATIONS, headline
from analysis.experiment_results.results_page import render_page, write_page
from analysis.experiment_results.results_table import render_results
from tests.unit.analysis.experiment_results.experiment_logs import ExperimentLogs, full_experiment

GOLDEN = Path(__file__).parents[4] / "tests" / "golden" / "experiment_results_v1.json"
NASTY = "<script>alert('x')</script>\"&[bold]"


class Page(HTMLParser):
    """Checks that every element is closed in order, and keeps the tags and the text."""

    VOID = frozenset({"meta"})

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    logs = ExperimentLogs(tmp_path_factory.mktemp("full"))
    return experiment_results(full_experiment(logs, np.random.default_rng(1), units=1_500), logs.root)


@pytest.fixture
def failing(results):
    """The same report with units missing from an arm, as it is shown: without effects."""
    ratio = results.sample_ratio
    checks = [msgspec.structs.replace(one, failed=True, p_value=1e-6) for one in ratio.checks]
    return msgspec.structs.replace(
        results,
        sample_ratio=msgspec.structs.replace(ratio, failed=True, checks=tuple(checks)),
        effects_hidden=True,
        metrics=(),
        latency=(),
        disagreement=(),
        effect_paths=(),
    )


def terminal(results, width=80):
    out = io.StringIO()
    Console(file=out, width=width).print(render_results(results))
    return out.getvalue()


def test_the_golden_report_of_schema_version_1_stays_readable():
    results = read_results(GOLDEN)
    assert (results.schema_version, results.experiment, len(results.epochs), len(results.arms)) == (1, "exp", 2, 3)
    assert results.of("primary")[0].covariate.variance_reduction > 0
    assert results.disagreement[0].narrower > 0
    assert render_page(results)


def test_a_report_is_read_back_as_it_was(results, tmp_path):
    path = tmp_path / "results.json"
    path.write_bytes(encode_results(results))
    assert read_results(path) == results
    assert results.schema_version == SCHEMA_VERSION == 1


def test_a_report_of_a_version_to_come_is_refused(results, tmp_path):
    path = tmp_path / "results.json"
    path.write_bytes(encode_results(msgspec.structs.replace(results, schema_version=2)))
    with pytest.raises(UnreadableFile, match="schema version 2; 1 is known"):
        read_results(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"experiment": 1}', b"\xff\xfe"])
def test_what_is_no_report_is_told_and_not_a_traceback(content, tmp_path):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match="is not a report of an experiment"):
        read_results(path)
    with pytest.raises(UnreadableFile, match="cannot be read"):
        read_results(tmp_path / "absent.json")


def test_the_json_has_no_number_that_json_does_not_know(results):
    def refuse(text):
        raise AssertionError(text)

    json.loads(encode_results(results), parse_constant=refuse)


def test_the_terminal_keeps_to_80_columns_and_shows_the_ratio_before_any_effect(results):
    shown = terminal(results)
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.index("as many units as the split says") < shown.index("treatment against control")
    assert "\x1b" not in shown


def test_while_the_ratio_fails_no_effect_is_shown_but_why_and_where_to_look(failing):
    for shown in (terminal(failing, 200), "".join(Page(render_page(failing)).words)):
        assert "Sample-ratio mismatch" in shown
        assert "Effects are hidden" in shown
        assert "Look for rows that one arm loses" in shown
        assert "Any time" not in shown


def test_effects_shown_despite_it_are_marked(results, failing):
    shown = msgspec.structs.replace(failing, metrics=results.metrics, effects_hidden=False)
    assert "do not decide by them" in terminal(shown, 200)
    assert "treatment against control (the sample ratio fails)" in terminal(shown, 200)
    assert "the sample ratio fails" in "".join(Page(render_page(shown)).words)


def test_nothing_in_a_report_claims_that_there_is_no_effect(results):
    for shown in (terminal(results, 200), render_page(results), json.dumps(list(EXPLANATIONS.values()))):
        assert not re.search(r"there is no effect|has no effect|no difference", shown, re.IGNORECASE)


def test_the_page_is_whole_and_names_nothing_on_a_network(results):
    page = render_page(results)
    found = Page(page)
    assert not {"script", "link", "img", "iframe"} & set(found.tags)
    assert not re.search(r"(https?:)?//", page)
    assert {"svg", "polygon", "polyline", "table"} <= set(found.tags)


def test_the_page_escapes_every_name(results):
    named = json.loads(encode_results(results).replace(b': "treatment"', b": " + json.dumps(NASTY).encode()))
    named |= {"experiment": NASTY, "unit": NASTY, "notes": [NASTY], "state": NASTY}
    nasty = msgspec.convert(named, ExperimentResults)
    page = render_page(nasty)
    Page(page)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 20
    assert NASTY in terminal(nasty, 400)


def test_the_page_has_every_part(results):
    words = "".join(Page(render_page(results)).words)
    headings = ("Is the split sound?", "correct over time", "All metrics", "Latency", "Shadow pairs", "Units over time")
    assert all(heading in words for heading in (*headings, "Epochs", "All figures", "Notes", "How to read this"))


def test_a_very_wide_interval_does_not_make_points_of_the_others(results):
    first = results.metrics[0]
    relative = msgspec.structs.replace(first.relative, anytime=type(first.relative.fixed)(-50.0, 50.0))
    wide = msgspec.structs.replace(
        results, metrics=(msgspec.structs.replace(first, relative=relative), *results.metrics[1:])
    )
    page = render_page(wide)
    assert "&lsaquo;" in page
    assert "&rsaquo;" in page
    assert FOREST_REACH > 1


def test_a_page_is_written_whole_or_not_at_all(results, tmp_path):
    with pytest.raises(OSError, match="No such file"):
        write_page(results, tmp_path / "absent" / "page.html")
    write_page(results, tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_the_headline_says_the_primary_verdict(results):
    assert headline(results).title in {"No effect found", "Better: treatment"}
    one = msgspec.structs.replace(
        results, metrics=(msgspec.structs.replace(results.metrics[0], verdict="worse", reason="-2%"),)
    )
    assert (headline(one).outcome, headline(one).title) == ("worse", "Worse")
    none = msgspec.structs.replace(results, metrics=())
    assert headline(none).title == "Nothing to compare"
    assert headline(msgspec.structs.replace(none, plan=None)).title == "Guardrails only"
