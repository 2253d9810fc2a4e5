"""The table of checks and the forms in which a run is told."""

import pytest

from tests.conformance.__main__ import main
from tests.conformance.check import Check, Level, Result, Verdict
from tests.conformance.kit import CHECKS
from tests.conformance.report import markdown, progress_line
from tests.conformance.sources import URL_BY_PAGE
from tests.conformance.tensors import (
    DATATYPES,
    RawFormError,
    TensorSpec,
    extremes,
    flattened,
    from_raw_form,
    generated,
    raw_form,
)
from tests.conformance.wire import AddressError, NotJson, chunked, parse_address, strict_json


def result(
    verdict: Verdict, *, name: str = "a.check", level: Level = Level.REQUIRED, found: str = "status 500"
) -> Result:
    check = Check(name, level, "inference_rest.md, Inference", "something holds", lambda _: None)
    return Result(check=check, verdict=verdict, expected="status 200", found=found, sent=(), came=())


def test_every_check_has_an_id_of_its_own_and_a_source_that_the_tables_can_link():
    assert len({check.id for check in CHECKS}) == len(CHECKS)
    assert {check.source.partition(", ")[0] for check in CHECKS} <= URL_BY_PAGE.keys()


def test_every_datatype_of_the_protocol_has_a_check():
    assert {f"infer.datatype.{datatype}" for datatype in DATATYPES} <= {check.id for check in CHECKS}


@pytest.mark.parametrize("datatype", sorted(DATATYPES))
def test_generated_and_extreme_values_survive_their_raw_form(datatype):
    tensor = generated(TensorSpec("x", datatype, (-1, 4, -1)), 2)
    assert tensor.shape == (2, 4, 3)
    assert len(tensor.values) == 24
    assert flattened(tensor.nested()["data"]) == tensor.values
    for values in (tensor.values, extremes(datatype)):
        assert from_raw_form(datatype, raw_form(datatype, values)) == values


@pytest.mark.parametrize(("datatype", "data"), [("FP32", b"\0" * 5), ("BYTES", b"\4\0\0\0abc"), ("BYTES", b"\4\0")])
def test_raw_bytes_that_do_not_fit_are_told(datatype, data):
    with pytest.raises(RawFormError):
        from_raw_form(datatype, data)


@pytest.mark.parametrize("body", [b"NaN", b"[Infinity]", b"", b"{", b"[" * 100_000])
def test_what_rfc_8259_does_not_know_is_no_json(body):
    with pytest.raises(NotJson):
        strict_json(body)


@pytest.mark.parametrize("url", ["https://host", "127.0.0.1:80", "http://", "http://host:port", "http://host/?a=1"])
def test_a_url_that_cannot_be_spoken_to_is_refused(url):
    with pytest.raises(AddressError):
        parse_address(url)


def test_a_base_path_is_kept():
    address = parse_address("http://localhost:8000/serving/")
    assert (address.host, address.port, address.prefix) == ("localhost", 8000, "/serving")


def test_chunks_frame_a_body():
    assert b"".join(chunked(b"abcde", 2)) == b"2\r\nab\r\n2\r\ncd\r\n1\r\ne\r\n0\r\n\r\n"


def test_deviations_of_one_cause_share_a_row_of_the_page():
    same = [result(Verdict.DEVIATES, name="one"), result(Verdict.DEVIATES, name="two")]
    page = markdown([*same, result(Verdict.DEVIATES, name="three", found="status 200: it is taken")])
    assert "| `one`, `two` | required | status 200 | status 500 |" in page
    assert "| `three` | required |" in page
    assert "| required | 0 | 3 | 0 |" in page


def test_a_line_of_progress_says_what_was_expected_and_what_came():
    assert progress_line(result(Verdict.PASSES)).split() == ["ok", "a.check"]
    assert "expected status 200; found status 500" in progress_line(result(Verdict.DEVIATES))
    assert progress_line(result(Verdict.NOT_OFFERED, found="one output")).endswith("one output")


def test_only_a_required_deviation_fails_a_run():
    assert result(Verdict.DEVIATES).fails
    assert not result(Verdict.DEVIATES, level=Level.HARDENING).fails
    assert not result(Verdict.NOT_OFFERED).fails


def test_the_list_of_checks_needs_no_server(capsys):
    assert main(["--list"]) == 0
    assert capsys.readouterr().out.count("\n| `") == len(CHECKS)


@pytest.mark.parametrize(
    "arguments", [[], ["--url", "http://h", "--input", "X:FP12:2"], ["--url", "http://h", "--parameter", "unit"]]
)
def test_bad_usage_ends_with_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_a_url_that_is_none_ends_with_exit_code_2(capsys):
    assert main(["--url", "ftp://host"]) == 2
    assert "is not a base URL" in capsys.readouterr().err
