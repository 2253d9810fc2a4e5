import pytest

from gateway.admission import SHARE_OF_MODEL_BY_PRIORITY, Admission, ModelAdmission, Priority, _shares
from gateway.errors import Overloaded


def admission_of(requests_in_flight_max: int) -> ModelAdmission:
    return Admission(requests_in_flight_max).of("churn", 100)


def fill(admission: ModelAdmission, priority: Priority) -> int:
    admitted = 0
    while True:
        try:
            admission.admit(priority)
        except Overloaded:
            return admitted
        admitted += 1


@pytest.mark.parametrize(("priority", "admitted"), [("sheddable", 70), ("default", 90), ("critical", 100)])
def test_each_priority_may_fill_its_own_share_of_the_gateway(priority, admitted):
    assert fill(admission_of(100), Priority(priority)) == admitted


def test_when_the_gateway_is_full_for_the_sheddable_the_critical_are_still_admitted():
    whole = Admission(100)
    model = whole.of("churn", 100)
    fill(model, Priority.SHEDDABLE)
    assert fill(model, Priority.DEFAULT) == 20
    assert fill(model, Priority.CRITICAL) == 10
    assert whole.in_flight == model.in_flight == 100
    assert whole.shed == {Priority.SHEDDABLE: 1, Priority.DEFAULT: 1, Priority.CRITICAL: 1}


def test_the_critical_are_let_in_above_a_models_own_limit_but_not_above_the_gateways():
    whole = Admission(1_000)
    model = whole.of("churn", 100)
    model._shares = _shares(100, SHARE_OF_MODEL_BY_PRIORITY)
    assert fill(model, Priority.SHEDDABLE) == 70
    assert fill(model, Priority.DEFAULT) == 30
    assert fill(model, Priority.CRITICAL) == 50
    model._shares = _shares(1_000, SHARE_OF_MODEL_BY_PRIORITY)
    assert fill(model, Priority.CRITICAL) == 850


def overloaded(in_flight: int) -> tuple[ModelAdmission, int]:
    """Give a model with so many of default priority in flight, whose limit has just fallen far below them."""
    whole = Admission(1_000)
    model = whole.of("churn", 100)
    for _ in range(in_flight):
        model.admit(Priority.DEFAULT)
    answers = 30
    for _ in range(answers):
        model.release(0.2)
        model.admit(Priority.DEFAULT)
    whole.follow(0.1)
    assert SHARE_OF_MODEL_BY_PRIORITY["critical"] * model.limit < in_flight
    return model, model.limit


def test_when_a_limit_falls_far_below_what_is_in_flight_places_given_back_are_for_the_critical_only():
    model, _ = overloaded(300)
    for _ in range(20):
        model.release(None)
        for priority in (Priority.SHEDDABLE, Priority.DEFAULT):
            with pytest.raises(Overloaded):
                model.admit(priority)
        model.admit(Priority.CRITICAL)
        with pytest.raises(Overloaded):
            model.admit(Priority.CRITICAL)
        model._critical_shed = 0
    model.follow(0.2)
    model.release(None)
    model.admit(Priority.CRITICAL)


def test_where_the_critical_alone_are_too_many_they_are_held_to_their_share_until_that_is_over():
    model, limit = overloaded(300)
    for _ in range(30):
        with pytest.raises(Overloaded):
            model.admit(Priority.CRITICAL)
    model.follow(0.2)
    for now_s in (0.3, 1.0, 2.1):
        model.release(None)
        with pytest.raises(Overloaded):
            model.admit(Priority.CRITICAL)
        model._critical_shed = 0
        model.follow(now_s)
    assert model._shares[Priority.CRITICAL] == int(1.5 * limit)
    model.follow(2.3)
    model.release(None)
    model.admit(Priority.CRITICAL)


def test_a_place_given_back_may_be_taken_again():
    model = admission_of(10)
    fill(model, Priority.CRITICAL)
    model.release(0.001)
    model.admit(Priority.CRITICAL)
    assert model.in_flight == 10


def test_the_smallest_gateway_admits_one_request_of_any_priority():
    for priority in Priority:
        assert fill(admission_of(1), priority) == 1


def test_an_overloaded_error_says_how_many_are_in_flight_and_for_whom():
    model = admission_of(10)
    fill(model, Priority.SHEDDABLE)
    with pytest.raises(Overloaded, match="7 requests are in flight, the most for priority sheddable"):
        model.admit(Priority.SHEDDABLE)


def test_a_slow_model_sheds_its_own_callers_and_not_those_of_another():
    whole = Admission(1_000)
    slow, quick = whole.of("slow", 100), whole.of("quick", 100)
    now_s = 0.0
    for _ in range(50):
        now_s += 0.1
        for model, latency_s in ((slow, 0.2), (quick, 0.002)):
            for _ in range(400):
                model.admit(Priority.CRITICAL) if model.in_flight < model.limit else None
            while model.in_flight:
                model.release(latency_s)
        whole.follow(now_s)
    assert slow.limit < 100
    assert quick.limit == 1_000


def test_a_model_whose_deadline_has_changed_gets_a_limit_of_its_own_and_the_count_stays_right():
    whole = Admission(100)
    before = whole.of("churn", 100)
    before.admit(Priority.DEFAULT)
    after = whole.of("churn", 50)
    assert after is not before
    assert whole.of("churn", 50) is after
    before.release(0.001)
    assert whole.in_flight == 0
