import pytest

from tests.integration.gateway_models import STALE_USER, ranking_scores

pytestmark = pytest.mark.integration


def test_an_entity_without_a_row_is_scored_by_the_declared_defaults_and_said(stack, client):
    answer = client.predict("ranking", {"entities": {"user": "nobody", "item": "i3"}}).json
    assert answer["degraded"] == ["feature_default:user_profile"]
    rows = stack.stored.rows([(0, 3)])
    rows[0, :6] = 0.5
    expected = ranking_scores(stack.repository, answer["version"], rows)
    assert answer["predictions"] == pytest.approx(expected, abs=1e-6)


def test_a_stale_row_is_scored_all_the_same_and_said(stack, client):
    answer = client.predict("ranking", {"entities": {"user": STALE_USER, "item": "i3"}}).json
    assert answer["degraded"] == ["feature_stale:user_profile"]
    expected = ranking_scores(stack.repository, answer["version"], stack.stored.rows([(0, 3)]))
    assert answer["predictions"] == pytest.approx(expected, abs=1e-6)


def test_each_fallback_of_a_batch_is_named_once(client):
    items = [{"entities": {"item": item}} for item in ("i1", "none", "neither")]
    answer = client.predict("ranking", {"entities": {"user": STALE_USER}, "instances": items}).json
    assert answer["degraded"] == ["feature_stale:user_profile", "feature_default:item_stats"]
    assert len(answer["predictions"]) == 3


@pytest.mark.parametrize("instances", [None, [{}, {"entities": {"user": "nobody"}}]], ids=["single", "one of a batch"])
def test_a_missing_row_of_a_view_that_must_be_there_is_refused(client, instances):
    user = "nobody" if instances is None else "u1"
    request = {"entities": {"user": user}, "features": {"hour": 1}, "instances": instances, "unit": "u1"}
    reply = client.predict("basket", request)
    assert (reply.status, reply.json["code"]) == (422, "features_missing")
    assert reply.json["field"] == "entities.user"


def test_a_score_that_is_no_number_is_null_and_its_output_is_named(client):
    answer = client.predict("basket", {"entities": {"user": "u1"}, "features": {"hour": -4}}).json
    assert answer["degraded"] == ["score_not_finite:roots"]
    roots = answer["predictions"][0]["roots"]
    assert roots[1] is None
    assert None not in (roots[0], roots[2])


def test_a_score_that_is_no_number_harms_no_other_instance(client):
    request = {"entities": {"user": "u1"}, "instances": [{"features": {"hour": hour}} for hour in (4, -4, 9)]}
    answer = client.predict("basket", request).json
    assert [prediction["roots"][1] for prediction in answer["predictions"]] == [2.0, None, 3.0]
