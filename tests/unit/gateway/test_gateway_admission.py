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
