"""What a request asks for: its unit, its variant, the names that it may use, and the answer's values."""

from typing import Any

import msgspec
import pytest

from contracts.tensor import Tensor
from experiments import Reason, parse_experiment
from gateway.admission import Priority
from gateway.errors import (
    ForcedVariantRefused,
    InvalidRequest,
    MissingUnit,
    TooManyInstances,
    UnknownEntity,
    UnknownFeature,
    UnknownVariant,
)
from gateway.predict import values_for_clients
from gateway.predict_request import PredictRequest
from gateway.request_names import attributes_of, check_names, unit_of
from gateway.routes_file import ModelRoute
from gateway.row_sources import SentRows
from gateway.scoring_ladder import Scored
from gateway.served_models import ServedModel
from gateway.variant_draw import Call, draw


def model_of(*documents: dict[str, Any], **route: Any) -> ServedModel:
    versions = {name: {"workers": ["http://worker:1"]} for name in ("1", "2")}
    fields = {"versions": versions, "default_version": "1", "unit": "user", **route}
    served = ServedModel("m", msgspec.convert(fields, ModelRoute), {}, tuple(map(parse_experiment, documents)))
    served.entities, served.request_features = frozenset({"user", "item"}), frozenset({"hour", "country"})
    served.names_are_known = True
    return served


def request_of(**fields: Any) -> PredictRequest:
    return msgspec.convert(fields, PredictRequest)


def experiment(name: str = "e", state: str = "running", **changes: Any) -> dict[str, Any]:
    variants = [{"name": f"{name}-{arm}", "version": version, "bp": 5_000} for arm, version in (("a", "1"), ("b", "2"))]
    return {"experiment": name, "model": "m", "unit": "user", "state": state, "variants": variants, **changes}


def call_of(model: ServedModel, request: PredictRequest, forced: str | None = None) -> Call:
    source = SentRows([Tensor("x", "FP32", (1,), bytes(4))], ())
    return Call(model, request, source, "r", Priority.DEFAULT, forced, 0.0, 100.0, 0)


ONE_UNIT = {
    "the one that is given": ({"unit": "x", "entities": {"user": "u"}}, "x"),
    "a number as its digits": ({"unit": 7}, "7"),
    "the shared entity": ({"entities": {"user": "u"}}, "u"),
    "the shared entity of a batch": ({"entities": {"user": "u"}, "instances": [{}, {}]}, "u"),
    "the entity of the only instance": ({"instances": [{"entities": {"user": "u"}}]}, "u"),
    "the entity in which all instances agree": ({"instances": [{"entities": {"user": "u"}}] * 3}, "u"),
    "a number and its digits": ({"instances": [{"entities": {"user": 7}}, {"entities": {"user": "7"}}]}, "7"),
    "an entity that every instance replaces": (
        {"entities": {"user": "u"}, "instances": [{"entities": {"user": "v"}}] * 2}, "v",
    ),
    "an instance that repeats the shared one": (
        {"entities": {"user": "u"}, "instances": [{"entities": {"user": "u"}}, {}]}, "u",
    ),
}  # fmt: skip


@pytest.mark.parametrize("claim", ONE_UNIT)
def test_the_unit_of_a_request_is(claim):
    fields, unit = ONE_UNIT[claim]
    assert unit_of(model_of(), request_of(**fields)) == unit


SEVERAL_UNITS = {
    "none": {},
    "none in an instance": {"instances": [{}]},
    "two": {"instances": [{"entities": {"user": "u"}}, {"entities": {"user": "v"}}]},
    "a shared one and another": {"entities": {"user": "u"}, "instances": [{}, {"entities": {"user": "v"}}]},
    "a shared one that is repeated, and another": {
        "entities": {"user": "u"},
        "instances": [{"entities": {"user": "u"}}, {"entities": {"user": "v"}}],
    },
}


@pytest.mark.parametrize("claim", SEVERAL_UNITS)
def test_a_request_without_exactly_one_unit_is_refused(claim):
    with pytest.raises(MissingUnit) as refused:
        unit_of(model_of(), request_of(**SEVERAL_UNITS[claim]))
    assert refused.value.field == "unit"


def test_a_route_may_allow_requests_without_a_unit_but_not_with_several():
    model = model_of(allow_missing_unit=True)
    assert unit_of(model, request_of()) is None
    with pytest.raises(MissingUnit):
        unit_of(model, request_of(**SEVERAL_UNITS["two"]))


def test_a_route_without_a_unit_draws_only_by_the_unit_that_is_given():
    model = model_of(unit=None)
    assert unit_of(model, request_of(entities={"user": "u"})) is None
    assert unit_of(model, request_of(unit="x")) == "x"


def test_what_targeting_reads_has_one_value_throughout_the_request():
    request = request_of(
        entities={"user": "u"},
        features={"country": "JP", "hour": 1},
        instances=[{"entities": {"item": "i"}, "features": {"hour": 2}}, {"entities": {"item": "j"}}],
    )
    assert attributes_of(request) == {"user": "u", "country": "JP"}


def test_a_forced_variant_needs_the_routes_leave_and_a_running_experiment():
    documents = experiment(), experiment("idle", "draft"), experiment("over", "concluded")
    request = request_of(entities={"user": "u"})
    with pytest.raises(ForcedVariantRefused):
        draw(call_of(model_of(*documents), request, "e-a"), "u")
    model = model_of(*documents, allow_forced_variant=True)
    forced = draw(call_of(model, request, "e-b"), "u")
    assert (forced.variant.name, forced.reason, forced.enrolled, forced.probability) == (
        "e-b",
        Reason.FORCED,
        False,
        None,
    )
    for name in ("idle-a", "over-b", "", "nothing"):
        with pytest.raises(UnknownVariant, match="there are: e-a, e-b"):
            draw(call_of(model, request, name), "u")


def test_a_model_without_experiments_serves_its_default_version():
    assert draw(call_of(model_of(), request_of()), "u").variant is None


def test_names_that_no_version_knows_are_refused_where_they_stand():
    model = model_of()
    for fields, error, field in (
        ({"entities": {"shop": "s"}}, UnknownEntity, "entities.shop"),
        ({"features": {"age": 1}}, UnknownFeature, "features.age"),
        ({"instances": [{}, {"entities": {"shop": "s"}}]}, UnknownEntity, "instances[1].entities.shop"),
        ({"instances": [{}, {"features": {"age": 1}}]}, UnknownFeature, "instances[1].features.age"),
    ):
        with pytest.raises(error) as refused:
            check_names(model, request_of(**fields))
        assert refused.value.field == field


def test_no_name_is_refused_while_a_version_that_might_know_it_is_not_planned():
    model = model_of()
    model.names_are_known = False
    check_names(model, request_of(entities={"shop": "s"}, features={"age": 1}))


def test_instances_are_one_or_more_and_at_most_what_the_route_takes():
    model = model_of(limits={"instances_max": 3})
    check_names(model, request_of(instances=[{}] * 3))
    with pytest.raises(TooManyInstances, match=r"4 instances.*at most 3"):
        check_names(model, request_of(instances=[{}] * 4))
    with pytest.raises(InvalidRequest):
        check_names(model, request_of(instances=[]))


def scored(finite: bool = True, **outputs: list[Any]) -> Scored:
    return Scored(None, None, tuple(outputs), list(outputs.values()), finite, ("before",), None, 0, 0)


def test_one_output_is_a_value_and_several_are_an_object_by_name():
    assert values_for_clients(scored(y=[1.0, 2.0])) == ([1.0, 2.0], ["before"])
    assert values_for_clients(scored(y=[1.0], z=["a"]))[0] == [{"y": 1.0, "z": "a"}]


def test_what_json_cannot_say_is_null_and_its_output_is_named_once():
    nan, inf = float("nan"), float("inf")
    values, degraded = values_for_clients(
        scored(finite=False, y=[nan, 1.0, -inf], z=[[1.0, inf], [2.0, 3.0], [4.0, 5.0]])
    )
    assert [v["y"] for v in values] == [None, 1.0, None]
    assert [v["z"] for v in values] == [[1.0, None], [2.0, 3.0], [4.0, 5.0]]
    assert degraded == ["before", "score_not_finite:y", "score_not_finite:z"]


def test_an_output_that_is_finite_beside_one_that_is_not_is_not_named():
    _, degraded = values_for_clients(scored(finite=False, y=[float("nan")], z=[1.0]))
    assert degraded == ["before", "score_not_finite:y"]
