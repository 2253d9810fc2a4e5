import math
from pathlib import Path

import pytest

from experiments import Experiment, assign, parse_experiment
from settings.yaml_file import read_yaml_documents
from tests.integration.gateway_stack import Gateway, Stack

pytestmark = pytest.mark.integration

STANDARD_ERRORS = 4.5
"""A fair split leaves these bounds once in about 150,000 draws; this one is the same in each run."""


def experiment(stack: Stack, name: str) -> Experiment:
    documents = read_yaml_documents(Path(stack.directory / "experiments.yaml"), dict)
    return parse_experiment(next(d for d in documents if d["experiment"] == name))


def variants_over_http(gateway: Gateway, units: list[str]) -> list[str | None]:
    found = []
    with gateway.client() as client:
        for begin in range(0, len(units), 50):
            for unit in units[begin : begin + 50]:
                reply = client.predict("ranking", {"entities": {"user": unit, "item": "i0"}})
                assert reply.status == 200, reply.body
                found.append(reply.json["variant"])
    return found


def within_bounds(seen: int, of: int, share: float) -> bool:
    return abs(seen - of * share) < STANDARD_ERRORS * math.sqrt(of * share * (1 - share))


def test_a_hundred_thousand_units_split_as_configured(stack):
    ranking = (experiment(stack, "ranking-lightgbm"),)
    variants = [assign(ranking, f"unit-{n}", {}).variant.name for n in range(100_000)]
    assert within_bounds(variants.count("treatment"), 100_000, 0.1)


def test_what_is_served_over_http_is_what_assignment_says_and_splits_as_configured(stack, gateway):
    units = [f"visitor-{n}" for n in range(2_000)]
    served = variants_over_http(gateway, units)
    ranking = (experiment(stack, "ranking-lightgbm"),)
    assert served == [assign(ranking, unit, {"user": unit}).variant.name for unit in units]
    assert within_bounds(served.count("treatment"), len(units), 0.1)


def test_a_unit_keeps_its_variant_when_asked_again_across_processes_and_after_a_restart(stack, gateway):
    units = [f"u{n}" for n in range(150)]
    first = variants_over_http(gateway, units)
    assert set(first) == {"control", "treatment"}
    assert variants_over_http(gateway, units) == first
    second = stack.start_gateway("--shutdown-grace-s", "0")
    assert variants_over_http(second, units) == first
    second.child.stop()
    restarted = stack.start_gateway("--shutdown-grace-s", "0")
    assert variants_over_http(restarted, units) == first
    restarted.child.stop()


def test_the_admin_page_explains_the_variant_that_is_served(stack, gateway, client):
    for unit in [f"u{n}" for n in range(40)]:
        explained = gateway.admin(f"/admin/v1/experiments/ranking-lightgbm/explain?unit={unit}")
        answer = client.predict("ranking", {"entities": {"user": unit, "item": "i0"}}).json
        assert (explained["variant"], explained["version"]) == (answer["variant"], answer["version"])
        assert explained["enrolled"]


def test_the_unit_of_a_request_is_drawn_by_rather_than_its_entity(stack, client):
    ranking = (experiment(stack, "ranking-lightgbm"),)
    unit = next(f"n{n}" for n in range(1_000) if assign(ranking, f"n{n}", {}).variant.name == "treatment")
    assert client.predict("ranking", {"entities": {"user": "u0", "item": "i0"}, "unit": unit}).json["version"] == "2"


@pytest.mark.parametrize("shape", ["shared", "one instance", "shared with instances"])
def test_targeting_reads_the_request_in_whichever_part_it_says_the_attribute(client, shape):
    entity, features = {"user": "u9"}, {"hour": 1, "country": "JP"}
    request = {
        "shared": {"entities": entity, "features": features},
        "one instance": {"instances": [{"entities": entity, "features": features}]},
        "shared with instances": {
            "entities": entity,
            "features": {"country": "JP"},
            "instances": [{"features": {"hour": 1}}] * 2,
        },
    }[shape]
    assert client.predict("basket", request).json["experiment"] == "basket-in-japan"


def test_a_unit_outside_the_target_is_served_the_default_version_in_no_experiment(client):
    request = {"entities": {"user": "u9"}, "features": {"hour": 1, "country": "DE"}}
    answer = client.predict("basket", request).json
    assert (answer["version"], answer["variant"], answer["experiment"]) == ("1", None, None)


def test_a_variant_that_the_route_lets_callers_force_is_served(client):
    request = {"entities": {"user": "u9"}, "features": {"hour": 1}}
    for name, version in (("control", "1"), ("treatment", "2")):
        answer = client.predict("basket", request, {"x-sekisho-variant": name}).json
        assert (answer["variant"], answer["version"]) == (name, version)
