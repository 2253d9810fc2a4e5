"""OFREP by OpenFeature's own client, and what that client cannot send."""

from collections.abc import Iterator
from typing import Any

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import FlagEvaluationDetails, Reason

from experiments import assign, parse_experiment
from tests.integration.experiments_admin import Admin, document, experimenting
from tests.integration.gateway_client import until
from tests.integration.gateway_stack import Gateway, Stack

pytestmark = pytest.mark.integration

FLAG = "/ofrep/v1/evaluate/flags/halves"
IN_CODE = "the default of the code"


@pytest.fixture(scope="module")
def stored(stack: Stack) -> Gateway:
    return stack.gateway_with_stored_experiments


@pytest.fixture
def admin(stored: Gateway) -> Iterator[Admin]:
    with experimenting(stored.admin_port) as found:
        yield found


@pytest.fixture
def flags(stored: Gateway) -> Iterator[OpenFeatureClient]:
    provider = OFREPProvider(f"http://127.0.0.1:{stored.port}")
    api.set_provider(provider, "sekisho")
    yield api.get_client("sekisho")
    api.clear_providers()
    provider.session.close()


def evaluated(flags: OpenFeatureClient, unit: str | None, flag: str = "halves", **context: Any) -> Any:
    return flags.get_string_details(flag, IN_CODE, EvaluationContext(unit, context))


def summed_up(details: FlagEvaluationDetails[str]) -> tuple[Any, ...]:
    assert details.error_code is None, details.error_message
    return details.value, details.variant, details.reason, details.flag_metadata["decision"]


def test_a_unit_gets_the_variant_that_it_is_served_and_drawn_by_the_split(admin, flags, stored):
    made = admin.create(document("halves"))
    experiment = parse_experiment(made.json["document"])
    found = set()
    with stored.client() as client:
        for n in range(30):
            details = evaluated(flags, f"u{n}")
            drawn = assign((experiment,), f"u{n}", {}).variant
            assert summed_up(details) == (drawn.version, drawn.name, Reason.SPLIT, "split")
            assert (
                client.predict("ranking", {"entities": {"user": f"u{n}", "item": "i1"}}).json["variant"] == drawn.name
            )
            found.add(drawn.name)
    assert found == {"control", "treatment"}
    assert details.flag_metadata == {
        "model": "ranking",
        "revision": made.json["revision"],
        "epoch": made.json["epoch"],
        "decision": "split",
    }


def test_an_overridden_unit_is_a_targeting_match(admin, flags):
    admin.create(document("halves", overrides={"u1": "treatment"}, enrol_bp=0))
    assert summed_up(evaluated(flags, "u1")) == ("2", "treatment", Reason.TARGETING_MATCH, "override")


@pytest.mark.parametrize(
    ("changed", "decision"),
    [
        ({"enrol_bp": 0}, "not_enrolled"),
        ({"where": "country == 'JP'"}, "not_targeted"),
        ({"holdout": {"name": "h", "bp": 10_000}}, "held_out"),
    ],
)
def test_a_unit_that_is_not_in_the_experiment_gets_the_default_version(admin, flags, changed, decision):
    admin.create(document("halves", **changed))
    assert summed_up(evaluated(flags, "u1", country="DE")) == ("1", "default", Reason.DEFAULT, decision)


def test_the_context_is_what_where_reads(admin, flags):
    admin.create(document("halves", where="country == 'JP' and age >= 18"))
    assert evaluated(flags, "u1", country="JP", age=18).reason == Reason.SPLIT
    assert evaluated(flags, "u1", country="JP", age=17).reason == Reason.DEFAULT


def test_a_unit_that_another_experiment_takes_is_not_in_this_one(admin, flags):
    admin.create(document("halves", layer={"name": "a", "slots": [[0, 10_000]]}))
    admin.create(document("later", layer={"name": "b", "slots": [[0, 10_000]]}))
    assert summed_up(evaluated(flags, "u1", "later")) == ("1", "default", Reason.DEFAULT, "other_slot")
    assert evaluated(flags, "u1").reason == Reason.SPLIT


@pytest.mark.parametrize("state", ["draft", "paused", "concluded"])
def test_an_experiment_that_does_not_run_is_disabled(admin, flags, state):
    admin.create(document("halves", state="draft" if state == "draft" else "running"))
    admin.set("halves", state=state)
    assert summed_up(evaluated(flags, "u1")) == ("1", "default", Reason.DISABLED, "not_running")


@pytest.mark.parametrize("model", ["ranking", "*"])
def test_a_killed_experiment_is_disabled(admin, flags, model):
    admin.create(document("halves", overrides={"u1": "treatment"}))
    assert admin.ask("PUT", "/admin/v1/kill-switch", {"model": model, "on": True}).status == 200
    assert summed_up(evaluated(flags, "u1")) == ("1", "default", Reason.DISABLED, "killed")


def test_a_winner_is_static(admin, flags):
    admin.create(document("halves"))
    admin.set("halves", state="concluded", winner="treatment")
    assert summed_up(evaluated(flags, "u1")) == ("2", "treatment", Reason.STATIC, "winner")


@pytest.mark.parametrize("unit", [None, ""])
def test_without_a_targeting_key_the_code_has_its_own_default_and_is_told(admin, flags, unit):
    admin.create(document("halves"))
    details = evaluated(flags, unit)
    assert (details.value, details.error_code) == (IN_CODE, ErrorCode.TARGETING_KEY_MISSING)
    assert "the user's id" in details.error_message


@pytest.mark.parametrize("unit", ["x" * 257, "\ud800"])
def test_a_unit_that_is_no_id_is_an_invalid_context(admin, stored, unit):
    admin.create(document("halves"))
    with stored.client() as client:
        reply = client.post(FLAG, {"context": {"targetingKey": unit}})
    assert reply.status == 400
    assert reply.json["errorCode"] in {"INVALID_CONTEXT", "PARSE_ERROR"}


@pytest.mark.parametrize("flag", ["nothing", "x" * 500, "%00", "caf%C3%A9"])
def test_a_flag_that_is_none_is_told_as_such(admin, flags, flag):
    details = evaluated(flags, "u1", flag)
    assert (details.value, details.error_code) == (IN_CODE, ErrorCode.FLAG_NOT_FOUND)


def test_a_flag_is_a_text_and_nothing_else(admin, flags):
    admin.create(document("halves"))
    details = flags.get_boolean_details("halves", True, EvaluationContext("u1"))
    assert (details.value, details.error_code) == (True, ErrorCode.TYPE_MISMATCH)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "PARSE_ERROR"),
        (b"", "PARSE_ERROR"),
        (b"\xff", "PARSE_ERROR"),
        (b'{"context": {"targetingKey": NaN}}', "PARSE_ERROR"),
        (b'{"context": {"a": ' + b"[" * 5_000, "PARSE_ERROR"),
        (b"[]", "INVALID_CONTEXT"),
        (b'{"context": []}', "INVALID_CONTEXT"),
        (b'{"context": {"targetingKey": "u1", "x": "%b"}}' % (b"x" * 65_536), "INVALID_CONTEXT"),
        (b"{}", "TARGETING_KEY_MISSING"),
        (b'{"context": {"targetingKey": true}}', "TARGETING_KEY_MISSING"),
        (b'{"context": {"targetingKey": ["u1"]}}', "TARGETING_KEY_MISSING"),
    ],
)
def test_a_context_that_is_wrong_is_told_in_ofreps_words(admin, stored, body, code):
    admin.create(document("halves"))
    with stored.client() as client:
        reply = client.post(FLAG, body)
    assert (reply.status, reply.json["key"], reply.json["errorCode"]) == (400, "halves", code)
    assert reply.json["errorDetails"]


def test_a_number_is_the_same_unit_as_its_digits(admin, stored):
    admin.create(document("halves"))
    with stored.client() as client:
        answers = [client.post(FLAG, {"context": {"targetingKey": unit}}).json for unit in (7, "7")]
    assert answers[0] == answers[1]


def test_a_context_may_hold_whatever_a_client_puts_there(admin, flags):
    admin.create(document("halves", where="not (age > 3)"))
    for strange in ([1, 2], {"a": 1}, None, "x" * 1_000, 10**30, -0.5, True):
        assert evaluated(flags, "u1", age=strange, other=strange).error_code is None


def test_a_body_of_another_kind_is_refused(admin, stored):
    admin.create(document("halves"))
    with stored.client() as client:
        reply = client.post(FLAG, b"context: {}", {"content-type": "text/yaml"})
    assert (reply.status, reply.json["errorCode"]) == (400, "PARSE_ERROR")


def test_asking_is_no_exposure(admin, flags, stored):
    admin.create(document("halves"))
    before = stored.admin("/admin/v1/status")["log"]["rows_offered"]
    assert evaluated(flags, "u1").reason == Reason.SPLIT
    assert stored.admin("/admin/v1/status")["log"]["rows_offered"] == before


def test_experiments_from_files_are_flags_too(gateway):
    provider = OFREPProvider(f"http://127.0.0.1:{gateway.port}")
    api.set_provider(provider, "files")
    details = evaluated(api.get_client("files"), "u1", "ranking-lightgbm")
    assert (details.reason, details.flag_metadata["model"]) == (Reason.SPLIT, "ranking")
    api.clear_providers()
    provider.session.close()


def test_a_change_is_evaluated_as_soon_as_it_is_in_force(admin, flags):
    admin.create(document("halves", overrides={"u1": "treatment"}))
    assert evaluated(flags, "u1").variant == "treatment"
    admin.set("halves", overrides={"u1": "control"})
    assert until("it is in force", lambda: evaluated(flags, "u1").variant == "control", 2)
