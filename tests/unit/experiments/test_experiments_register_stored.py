import json
from pathlib import Path

import pytest

from experiments import State
from experiments.register import Register, RegisterError, decode, encode
from tests.unit.experiments.register_documents import DOCUMENT, changed, golden_register, made

GOLDEN = Path(__file__).parents[2] / "golden" / "experiment_register_v1.json"


def test_the_golden_register_is_written_as_it_was():
    assert encode(golden_register()) + b"\n" == GOLDEN.read_bytes()


def test_the_golden_register_is_read_value_by_value():
    register = decode(GOLDEN.read_bytes())
    assert (register.revision, register.killed, register.models()) == (5, {"shop"}, {"diagnosis", "shop"})
    entry = register.entries["diagnosis-2026q4"]
    whole = entry.experiment
    assert (entry.created_at_us, entry.step_since_us) == (1_700_000_000_000_000, 1_700_000_600_000_000)
    assert (whole.revision, whole.epoch, whole.enrol_bp, whole.salt) == (4, 2, 1_000, "7f3c")
    assert [(v.name, v.version, v.ranges) for v in whole.variants] == [
        ("control", "1", ((0, 5_000), (9_000, 10_000))),
        ("treatment", "2", ((5_000, 9_000),)),
    ]
    assert set(whole.overrides) == {"p7", "東京-7"}
    button, checkout = made(register, "button"), made(register, "checkout")
    assert (button.hash, button.state, checkout.salts) == ("growthbook-v2", State.PAUSED, ("traffic é", "split é"))
    assert checkout.winner is checkout.variants[1]
    assert encode(register) + b"\n" == GOLDEN.read_bytes()


def test_an_experiment_that_is_known_and_unchanged_is_not_compiled_anew():
    register = golden_register()
    read = decode(encode(register), register)
    assert all(read.entries[name].experiment is entry.experiment for name, entry in register.entries.items())


def test_another_document_under_the_same_numbers_is_read_anew():
    here, there = changed(Register(), {"enrol_bp": 100}), changed(Register(), {"enrol_bp": 200})
    assert made(here).revision == made(there).revision
    assert made(decode(encode(there), here)).enrol_bp == 200


def test_the_times_of_an_experiment_that_is_known_are_read_anew():
    here, there = changed(Register(), {}, now_us=1), changed(Register(), {}, now_us=2)
    assert decode(encode(there), here).entries["e"].step_since_us == 2


HEAD = '{"format":1,"revision":1,"killed":[],"experiments":'
HOSTILE = {
    "nothing": "",
    "no JSON": "{",
    "no object": "[]",
    "null": "null",
    "another format": '{"format":2,"revision":1,"killed":[],"experiments":{}}',
    "no format": '{"revision":1,"killed":[],"experiments":{}}',
    "an infinite revision": '{"format":1,"revision":1e999,"killed":[],"experiments":{}}',
    "a revision that is none": '{"format":1,"revision":NaN,"killed":[],"experiments":{}}',
    "no revision": '{"format":1,"killed":[],"experiments":{}}',
    "a revision of ten thousand digits": '{"format":1,"revision":' + "9" * 10_000 + ',"killed":[],"experiments":{}}',
    "killed that is no list": '{"format":1,"revision":1,"killed":null,"experiments":{}}',
    "experiments that are a list": HEAD + "[]}",
    "an entry that is none": HEAD + '{"e":null}}',
    "an entry without a document": HEAD + '{"e":{"revision":1,"epoch":1,"created_at_us":0,"step_since_us":0}}}',
    "a document of another name": HEAD
    + '{"f":{"revision":1,"epoch":1,"created_at_us":0,"step_since_us":0,"document":'
    + json.dumps(DOCUMENT)
    + "}}}",
    "a wrong document": HEAD
    + '{"e":{"revision":1,"epoch":1,"created_at_us":0,"step_since_us":0,"document":'
    + json.dumps(DOCUMENT | {"enrol_bp": -1})
    + "}}}",
    "lists nested a hundred thousand deep": HEAD + "[" * 100_000 + "]" * 100_000 + "}",
    "a document nested as deep as can be read": HEAD
    + '{"e":{"revision":1,"epoch":1,"created_at_us":0,"step_since_us":0,"document":{"variants":'
    + "[" * 900
    + "]" * 900
    + "}}}}",
}


@pytest.mark.parametrize("stored", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_register_is_refused_by_the_one_error(stored: str):
    for known in (None, golden_register()):
        with pytest.raises(RegisterError) as caught:
            decode(stored.encode(), known)
        assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"\x00" * 100, b"PAR1"])
def test_bytes_that_are_no_text_are_refused_by_the_one_error(data: bytes):
    with pytest.raises(RegisterError):
        decode(data)
