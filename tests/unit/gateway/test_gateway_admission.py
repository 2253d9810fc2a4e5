import pytest

from gateway.admission import Admission, Priority
from gateway.errors import Overloaded


def fill(admission: Admission, priority: Priority) -> int:
    admitted = 0
    while True:
        try:
            admission.admit(priority)
        except Overloaded:
            return admitted
        admitted += 1


@pytest.mark.parametrize(("priority", "admitted"), [("sheddable", 70), ("default", 90), ("critical", 100)])
def test_each_priority_may_fill_its_own_share_of_the_gateway(priority, admitted):
    assert fill(Admission(100), Priority(priority)) == admitted


def test_when_the_gateway_is_full_for_the_sheddable_the_critical_are_still_admitted():
    admission = Admission(100)
    fill(admission, Priority.SHEDDABLE)
    assert fill(admission, Priority.DEFAULT) == 20
    assert fill(admission, Priority.CRITICAL) == 10
    assert admission.in_flight == 100
    assert admission.shed == {Priority.SHEDDABLE: 1, Priority.DEFAULT: 1, Priority.CRITICAL: 1}


def test_a_place_given_back_may_be_taken_again():
    admission = Admission(10)
    fill(admission, Priority.CRITICAL)
    admission.release()
    admission.admit(Priority.CRITICAL)
    assert admission.in_flight == 10


def test_the_smallest_gateway_admits_one_request_of_any_priority():
    for priority in Priority:
        assert fill(Admission(1), priority) == 1


def test_an_overloaded_error_says_how_many_are_in_flight_and_for_whom():
    admission = Admission(10)
    fill(admission, Priority.SHEDDABLE)
    with pytest.raises(Overloaded, match="7 requests are in flight, the most for priority sheddable"):
        admission.admit(Priority.SHEDDABLE)
