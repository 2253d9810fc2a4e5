"""The configuration history: audit trails, YAML files, directories; and what is wrong with those that are damaged."""

import json

import pytest

from analysis.assignment_replay import DamagedHistory, replay
from analysis.assignment_replay.history import read_history
from experiments import parse_experiment
from tests.unit.analysis.assignment_replay.conftest import found
from tests.unit.analysis.assignment_replay.logged_history import RegisterHistory, Rows, arms, document

YAML = """\
experiment: e
model: m
unit: user
state: running
variants:
  - {name: control, version: 1, bp: 5000}
  - {name: treatment, version: 2, bp: 5000}
overrides: {7: control}
---
experiment: f
model: m
unit: user
state: paused
variants: [{name: control, version: "1", bp: 10000}]
"""


def test_an_audit_trail_gives_each_put_document_under_its_number(tmp_path):
    history = RegisterHistory()
    put = [history.put(document(enrol_bp=enrol_bp)) for enrol_bp in (100, 200)]
    read = read_history([history.write(tmp_path / "audit.jsonl")])
    for experiment in put:
        (same,) = read.of("e", experiment.revision)
        assert (same.document, same.epoch) == (experiment.document, experiment.epoch)
    assert read.of("e", 3) == read.of("f", 1) == ()


def test_what_is_no_document_is_passed_over(tmp_path):
    history = RegisterHistory()
    history.say(action="kill", model="*")
    history.say(action="restore", actor="host-1", revision=9)
    history.put(document(state="draft"))
    history.say(action="delete", experiment="e", revision=2, epoch=1, before=document(state="draft"))
    history.say(action="unkill", model="m")
    path = history.write(tmp_path / "audit.jsonl")
    path.write_text("\n" + path.read_text() + '\n{"of a later program": [1]}\n')
    assert [one.revision for one in read_history([path]).experiments()] == [1]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not a line of `sekisho-experiments audit --export`"),
        ("[]", "Expected `object`, got `array`"),
        ("\xff", "not a line of"),
        ('{"after": 1}', r"Expected `object \| null`, got `int` - at `\$.after`"),
        ('{"after": {}}', "a document without its experiment, revision and epoch"),
        ('{"after": {}, "experiment": "e", "revision": true, "epoch": 1}', "got `bool`"),
        ('{"after": {}, "experiment": "e", "revision": 3, "epoch": 1}', "no document that this program reads: exp"),
        ("[" * 100_000, "not a line of"),
    ],
)
def test_a_damaged_line_is_told_with_its_file_and_number(tmp_path, line, problem):
    history = RegisterHistory()
    history.put(document())
    path = history.write(tmp_path / "audit.jsonl")
    path.write_bytes(path.read_bytes() + b"\n" + line.encode("latin-1") + b"\n")
    with pytest.raises(DamagedHistory, match=problem) as told:
        read_history([path])
    assert (told.value.path, told.value.line) == (path, 3)
    assert str(told.value).startswith(f"{path}:3: ")


def test_a_document_of_another_name_is_told(tmp_path):
    path = tmp_path / "audit.jsonl"
    path.write_text(json.dumps({"experiment": "f", "revision": 1, "epoch": 1, "after": document("e")}))
    with pytest.raises(DamagedHistory, match=":1: a change of 'f' that holds the document of 'e'"):
        read_history([path])


def test_a_damaged_line_is_told_though_no_row_names_its_revision(place):
    place.rows.answer([place.history.put(document())], "u1")
    place.history.say(action="put", experiment="f", revision=2, epoch=1, after={"experiment": "f"})
    with pytest.raises(DamagedHistory, match=r"audit\.jsonl:2: "):
        place.replay()


def test_only_revisions_that_are_wanted_are_kept(tmp_path):
    history = RegisterHistory()
    for enrol_bp in (100, 200, 300):
        history.put(document(enrol_bp=enrol_bp))
    read = read_history([history.write(tmp_path / "audit.jsonl")], {("e", 2), ("e", 9)})
    assert [one.revision for one in read.experiments()] == [2]


def test_files_of_documents_are_a_history_by_their_fingerprints(tmp_path):
    path = tmp_path / "experiments.yaml"
    path.write_text(YAML)
    named = {one.name: one for one in read_history([path]).experiments()}
    assert set(named) == {"e", "f"}
    again = parse_experiment(named["e"].document)
    assert (named["e"].revision, named["e"].epoch) == (again.revision, again.epoch)


def test_a_log_by_files_is_explained_by_every_file_that_was_ever_served(tmp_path):
    rows, files = Rows(), [tmp_path / "monday.yaml", tmp_path / "tuesday.yml"]
    files[0].write_text(YAML)
    files[1].write_text(YAML.replace("bp: 5000", "bp: 9000", 1).replace("bp: 5000", "bp: 1000"))
    for file in files:
        (experiment,) = (one for one in read_history([file]).experiments() if one.name == "e")
        for number in range(50):
            rows.answer([experiment], str(number))
    rows.write(tmp_path)
    assert replay(tmp_path, files).mismatches == 0
    assert found(replay(tmp_path, files[:1])) == {"unknown_revision": 50}


def test_a_directory_gives_its_files_and_a_file_that_says_the_same_again_adds_nothing(tmp_path):
    history = RegisterHistory()
    history.put(document())
    inside = tmp_path / "history"
    inside.mkdir()
    history.write(inside / "a.jsonl")
    history.write(inside / "b.jsonl")
    (inside / "e.yaml").write_text(YAML)
    (inside / "README.md").write_text("not read")
    read = read_history([inside, inside / "a.jsonl"])
    assert (len(list(read.experiments())), read.numbered_twice) == (3, ())


def test_two_documents_under_one_number_are_both_kept_and_told(tmp_path):
    paths = []
    for name, shares in (("a", (5_000, 5_000)), ("b", (1_000, 9_000))):
        history = RegisterHistory()
        history.put(document(variants=arms(*shares)))
        paths.append(history.write(tmp_path / f"{name}.jsonl"))
    read = read_history(paths)
    assert (len(read.of("e", 1)), read.numbered_twice) == (2, (("e", 1),))


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        (YAML.replace("bp: 10000", "bp: 9000"), 14, "variants: bp add up to 9000, not to 10000"),
        (YAML.replace("state: running", "state: runing"), 4, "state: 'runing': one of draft"),
        ("experiment: [", 1, "not YAML"),
        ("- a\n", 1, "Expected `object`, got `array`"),
    ],
)
def test_a_wrong_file_of_documents_is_told_with_its_line(tmp_path, text, line, problem):
    path = tmp_path / "e.yaml"
    path.write_text(text)
    with pytest.raises(DamagedHistory, match=problem) as told:
        read_history([path])
    assert (told.value.path, told.value.line) == (path, line)


def test_what_is_not_there_or_empty_is_told(tmp_path):
    with pytest.raises(DamagedHistory, match=r"absent\.jsonl:1: cannot be read: No such file"):
        read_history([tmp_path / "absent.jsonl"])
    with pytest.raises(DamagedHistory, match=r"absent\.yaml:1: cannot be read: No such file"):
        read_history([tmp_path / "absent.yaml"])
    with pytest.raises(DamagedHistory, match=r"a directory without \*.jsonl, \*.yaml and \*.yml files"):
        read_history([tmp_path])


def test_a_restored_register_gives_back_every_document_that_it_had(tmp_path):
    first = {"experiment": "e", "revision": 4, "epoch": 2, "after": document()}
    second = {"experiment": "f", "revision": 7, "epoch": 1, "after": {**document(), "experiment": "f"}}
    entry = {"action": "restore", "actor": "a", "reason": "r", "revision": 9, "documents": [first, second]}
    (tmp_path / "audit.jsonl").write_text(json.dumps(entry) + "\n")
    read = read_history([tmp_path / "audit.jsonl"])
    assert [(e.name, e.revision, e.epoch) for e in read.experiments()] == [("e", 4, 2), ("f", 7, 1)]
