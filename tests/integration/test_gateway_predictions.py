import math
from collections.abc import Iterator

import numpy as np
import pytest

from tests.integration.gateway_client import Client
from tests.integration.gateway_models import ITEMS, USERS, ranking_scores
from tests.integration.gateway_stack import Stack

pytestmark = pytest.mark.integration

TOLERANCE = 1e-6
Pairs = list[tuple[int, int]]


def draw_pairs(count: int, seed: int) -> Pairs:
    random = np.random.default_rng(seed)
    users, items = random.integers(USERS, size=count), random.integers(ITEMS, size=count)
    return [(int(user), int(item)) for user, item in zip(users, items, strict=True)]


def offline(stack: Stack, pairs: Pairs) -> dict[str, np.ndarray]:
    return {version: ranking_scores(stack.repository, version, stack.stored.rows(pairs)) for version in ("1", "2")}


def entities(pair: tuple[int, int]) -> dict[str, str]:
    return {"user": f"u{pair[0]}", "item": f"i{pair[1]}"}


def answers(client: Client, model: str, requests: list[dict]) -> Iterator[dict]:
    for request in requests:
        reply = client.predict(model, request)
        assert reply.status == 200, reply.body
        yield reply.json


def test_a_thousand_single_predictions_equal_what_the_artifacts_give_offline(stack, client):
    pairs = draw_pairs(1_000, seed=1)
    expected = offline(stack, pairs)
    served = dict.fromkeys(expected, 0)
    for index, answer in enumerate(answers(client, "ranking", [{"entities": entities(pair)} for pair in pairs])):
        assert answer["degraded"] == []
        assert answer["predictions"] == pytest.approx([expected[answer["version"]][index]], abs=TOLERANCE)
        served[answer["version"]] += 1
    assert min(served.values()) >= 50


def test_a_batch_of_several_entities_under_one_unit_equals_what_the_artifacts_give_offline(stack, client):
    pairs = draw_pairs(400, seed=2)
    expected = offline(stack, pairs)
    batches = [slice(begin, begin + 20) for begin in range(0, 400, 20)]
    requests = [
        {"instances": [{"entities": entities(pair)} for pair in pairs[rows]], "unit": f"basket-{n}"}
        for n, rows in enumerate(batches)
    ]
    versions = set()
    for rows, answer in zip(batches, answers(client, "ranking", requests), strict=True):
        versions.add(answer["version"])
        assert answer["predictions"] == pytest.approx(expected[answer["version"]][rows], abs=TOLERANCE)
    assert versions == {"1", "2"}


def test_items_ranked_for_one_shared_user_equal_what_the_artifacts_give_offline(stack, client):
    requests = [
        {"entities": {"user": f"u{user}"}, "instances": [{"entities": {"item": f"i{item}"}} for item in range(ITEMS)]}
        for user in range(25)
    ]
    versions = set()
    for user, answer in enumerate(answers(client, "ranking", requests)):
        versions.add(answer["version"])
        expected = offline(stack, [(user, item) for item in range(ITEMS)])[answer["version"]]
        assert answer["predictions"] == pytest.approx(expected, abs=TOLERANCE)
    assert versions == {"1", "2"}


def test_an_instance_replaces_the_entity_that_is_shared(stack, client):
    shared = {"entities": {"user": "u1", "item": "i1"}, "instances": [{}, {"entities": {"item": "i2"}}]}
    (answer,) = answers(client, "ranking", [shared])
    expected = offline(stack, [(1, 1), (1, 2)])[answer["version"]]
    assert answer["predictions"] == pytest.approx(expected, abs=TOLERANCE)


def test_a_number_is_the_same_entity_as_its_decimal_text(client):
    (as_number, as_text) = answers(
        client, "ranking", [{"entities": {"user": user, "item": "i1"}} for user in (4711, "4711")]
    )
    assert as_number["predictions"] == as_text["predictions"]
    assert as_number["variant"] == as_text["variant"]


def test_every_kind_of_tensor_and_feature_source_arrives_as_it_was_stored_or_sent(stack, client):
    requests = [{"entities": {"user": f"u{user}"}, "features": {"hour": user / 4}} for user in range(30)]
    for user, answer in enumerate(answers(client, "basket", requests)):
        (prediction,) = answer["predictions"]
        amounts = [float(stack.stored.users[user, 0]), user / 4, float(stack.stored.users[user, 1])]
        assert prediction["total"] == pytest.approx(sum(amounts), abs=1e-5)
        assert prediction["roots"] == pytest.approx([math.sqrt(amount) for amount in amounts], abs=1e-5)
        assert (prediction["visits_twice"], prediction["tier_echo"]) == (2 * user, f"tier-{user % 3}")


def test_a_request_may_replace_the_stored_feature_that_its_route_names(stack, client):
    request = {
        "entities": {"user": "u3"},
        "features": {"hour": 1},
        "instances": [{}, {"features": {"user_profile:f0": 9}}],
    }
    (answer,) = answers(client, "basket", [request])
    stored, replaced = (prediction["roots"] for prediction in answer["predictions"])
    assert stored[0] == pytest.approx(math.sqrt(stack.stored.users[3, 0]), abs=1e-6)
    assert replaced == [3.0, *stored[1:]]


def test_an_instance_replaces_the_request_feature_that_is_shared(client):
    request = {"entities": {"user": "u3"}, "features": {"hour": 1}, "instances": [{}, {"features": {"hour": 16}}]}
    (answer,) = answers(client, "basket", [request])
    assert [prediction["roots"][1] for prediction in answer["predictions"]] == [1.0, 4.0]
