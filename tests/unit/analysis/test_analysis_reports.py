import io
import json
import re
from html.parser import HTMLParser

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from analysis import compare, encode_report, make_profile, prometheus_text, render_table, write_html
from analysis.drift_report import DriftReport
from analysis.html_report import SECTIONS_MAX, render_html

NASTY = "<script>alert('x')</script>\"&[bold]"


class Page(HTMLParser):
    """Checks that every element is closed in order, and keeps ids, links and the text of one kind of element."""

    VOID = frozenset({"meta", "link", "br", "img", "line", "rect"})

    def __init__(self, page):
        super().__init__()
        self.open, self.ids, self.links, self.tags = [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attributes = dict(attrs)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if tag == "a" else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def report(log):
    rng = np.random.default_rng(1)
    rows = 2_000
    baseline = make_profile(
        pa.table(
            {
                "patient.age": rng.normal(50, 12, rows),
                "patient.country": rng.choice(["JP", "DE", NASTY], rows),
                "patient.visits": rng.poisson(2, rows),
                "y.score": rng.random(rows),
            }
        ),
        model="diagnosis",
        version="1",
    )
    log.write(
        {
            "patient.age": pa.array(rng.normal(65, 12, rows), mask=rng.random(rows) < 0.1),
            "patient.country": rng.choice(["JP", "DE", NASTY], rows),
            "patient.visits": rng.poisson(2, rows),
        },
        scores={"score": rng.random(rows)},
        version="1",
    )
    log.write({"patient.age": rng.normal(65, 12, 20)}, scores={"score": rng.random(20)}, version="2")
    return compare(baseline, log.root, "diagnosis", rows_served=2_525)


def terminal(report, width):
    out = io.StringIO()
    Console(file=out, width=width).print(render_table(report))
    return out.getvalue()


def test_the_json_report_is_read_back_as_it_was(report):
    assert msgspec.json.decode(encode_report(report), type=DriftReport) == report


def test_the_json_report_has_no_number_that_json_does_not_know(report):
    def refuse(text):
        raise AssertionError(text)

    json.loads(encode_report(report), parse_constant=refuse)


def test_the_terminal_table_keeps_to_80_columns_and_begins_with_what_was_found(report):
    lines = terminal(report, 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("diagnosis: 1 drifted feature, ")
    rows = [line for line in lines if re.search(r" (drift|ok|no baseline) ", line)]
    assert rows[0].startswith("patient.age")


def test_the_terminal_table_has_no_escape_codes_where_nobody_sees_colour(report):
    assert "\x1b" not in terminal(report, 80)


def test_the_terminal_table_shows_a_name_in_brackets_as_it_is(report):
    assert "y.score@1 [control]" in terminal(report, 120)


def test_the_terminal_states_the_share_of_rows_that_is_missing(report):
    assert "Missing: 20.00% of 2,525 served rows" in terminal(report, 120)


def test_the_page_is_well_formed_and_its_links_lead_somewhere(report):
    page = Page(render_html(report))
    assert len(page.ids) == len(set(page.ids))
    assert page.links
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)


def test_the_page_loads_nothing(report):
    text = render_html(report)
    assert not re.search(r"(?:https?:)?//[a-z]", text)
    assert not re.search(r"""\b(?:src|srcset|@import|url\()""", text)
    assert not {"link", "img", "iframe", "object"} & set(Page(text).tags)


def test_names_and_categories_are_escaped_in_the_page(report):
    text = render_html(report)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert Page(text).tags.count("script") == 1


def test_the_page_draws_every_compared_column_and_says_the_verdict_first(report):
    text = render_html(report)
    compared = sum(1 for column in report.columns if column.statistics)
    assert Page(text).tags.count("svg") == compared
    assert text.index("<strong>Drift</strong>") < text.index("<h2>")


def test_a_page_of_very_many_columns_draws_the_worst_and_says_how_many_are_left_out(report):
    column = report.features[0]
    many = [msgspec.structs.replace(column, name=f"v.f{number}") for number in range(SECTIONS_MAX + 7)]
    text = render_html(msgspec.structs.replace(report, features=tuple(many), predictions=()))
    assert Page(text).tags.count("svg") == SECTIONS_MAX
    assert "7 further columns are in the JSON report" in text


def test_the_page_is_written_whole_and_leaves_nothing_beside_it(report, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    write_html(report, folder / "drift.html")
    assert [path.name for path in folder.iterdir()] == ["drift.html"]


def test_prometheus_reads_every_statistic_with_its_labels(report):
    families = {family.name: family for family in text_string_to_metric_families(prometheus_text(report))}
    scores = {
        (sample.labels["feature"], sample.labels["version"], sample.labels["statistic"]): sample.value
        for sample in families["sekisho_drift_score"].samples
    }
    age = report.features[0]
    assert scores["patient.age", "", "psi"] == age.statistics.psi
    assert scores["patient.age", "", "null_share"] == age.shares.null
    assert ("y.score", "1", "ks") in scores
    assert families["sekisho_drift_rows"].samples[0].value == 2_000
    thresholds = families["sekisho_drift_threshold"].samples
    assert {sample.labels["statistic"] for sample in thresholds} == {"psi"}


def test_prometheus_has_no_series_twice(report):
    series = [line.rsplit(" ", 1)[0] for line in prometheus_text(report).splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))


def test_prometheus_labels_are_escaped(report):
    named = msgspec.structs.replace(report, model='a"b\\c\nd')
    (family, *_) = text_string_to_metric_families(prometheus_text(named))
    assert family.samples[0].labels["model"] == 'a"b\\c\nd'


def test_the_end_of_the_window_is_a_time_in_seconds(report):
    families = {family.name: family for family in text_string_to_metric_families(prometheus_text(report))}
    (sample,) = families["sekisho_drift_window_end_timestamp_seconds"].samples
    assert sample.value == report.window.last_row.timestamp()
