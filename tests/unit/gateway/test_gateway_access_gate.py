import logging
from collections import Counter
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from gateway.access.gate import CREDENTIALS_BYTES_MAX, AccessGate
from gateway.access.key_ring import key_ring
from gateway.access.keys_file import KeyEntry, Scope
from gateway.access.new_key import digest_of
from gateway.errors import Forbidden, GatewayError, RateLimited, Unauthenticated
from tests.unit.gateway.gateway_fakes import HandClock

GOOD, OTHER = "sk_" + "a" * 43, "sk_" + "b" * 43
PREDICT = (Scope.PREDICT,)


def entry(key: str = GOOD, **fields: Any) -> KeyEntry:
    given = {"name": "checkout", "sha256": digest_of(key.encode()).hex(), "scopes": ["predict"], **fields}
    return msgspec.convert(given, KeyEntry)


class Guarded:
    """A gate of some entries, with clocks in hand and counts."""

    def __init__(self, *entries: KeyEntry, processes: int = 1) -> None:
        self.clock, self.wall, self.counts = HandClock(), HandClock(), Counter[tuple[str, str]]()
        self.processes = processes
        self.gate = AccessGate({}, self.clock, self.wall, lambda name, outcome: self.counts.update([(name, outcome)]))
        self.replace(*entries)

    def replace(self, *entries: KeyEntry) -> None:
        self.gate.ring = key_ring(entries, self.processes, self.clock(), self.gate.ring)

    def ask(self, credentials: str | None = f"Bearer {GOOD}", scopes=PREDICT, model: str | None = None) -> str:
        headers = {} if credentials is None else {b"authorization": credentials.encode("latin-1")}
        return self.gate.admit(headers, scopes, model).name


def refusal(guarded: Guarded, *args: Any, **kwargs: Any) -> GatewayError:
    with pytest.raises(GatewayError) as error:
        guarded.ask(*args, **kwargs)
    return error.value


def test_a_known_key_is_let_through_and_named_and_counted():
    guarded = Guarded(entry(), entry(OTHER, name="mobile"))
    assert [guarded.ask(), guarded.ask(f"bearer  {OTHER}"), guarded.ask()] == ["checkout", "mobile", "checkout"]
    assert guarded.counts == {("checkout", "admitted"): 2, ("mobile", "admitted"): 1}


MALFORMED = {
    "nothing": "",
    "no scheme": GOOD,
    "another scheme": f"Basic {GOOD}",
    "no key": "Bearer ",
    "no prefix": f"Bearer {GOOD[3:]}",
    "a key cut short": f"Bearer {GOOD[:-1]}",
    "a key with more behind it": f"Bearer {GOOD}a",
    "two keys": f"Bearer {GOOD}, Bearer {OTHER}",
    "a key of other letters": f"Bearer sk_{'é' * 43}",
    "a key behind many spaces": f"Bearer{' ' * CREDENTIALS_BYTES_MAX}{GOOD}",
}


@pytest.mark.parametrize("credentials", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_bearer_key_is_not_authenticated(credentials: str):
    assert isinstance(refusal(Guarded(entry()), credentials), Unauthenticated)


def test_a_request_without_a_key_is_told_how_to_send_one():
    error = refusal(Guarded(entry()), None)
    assert isinstance(error, Unauthenticated)
    assert "Bearer KEY" in error.detail


def test_an_unknown_key_and_an_expired_one_are_told_the_same():
    guarded = Guarded(entry(expires="1970-01-01T00:16:41Z"))
    assert guarded.ask() == "checkout"
    guarded.wall.now_s = 1_001.0
    expired, unknown = refusal(guarded), refusal(guarded, f"Bearer {OTHER}")
    assert isinstance(expired, Unauthenticated)
    assert (type(expired), expired.detail) == (type(unknown), unknown.detail)


def test_no_refusal_repeats_the_key(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    guarded = Guarded(entry(OTHER, requests_per_s=1, burst=1))
    errors = [refusal(guarded), refusal(guarded, f"Basic {GOOD}"), refusal(guarded, f"Bearer {OTHER}", (Scope.ADMIN,))]
    guarded.ask(f"Bearer {OTHER}")
    errors.append(refusal(guarded, f"Bearer {OTHER}"))
    told = caplog.text + "".join(f"{error} {error.detail} {vars(error)}" for error in errors)
    assert "aaaa" not in told
    assert "bbbb" not in told


def test_a_key_needs_one_of_the_scopes_and_no_other():
    guarded = Guarded(entry(scopes=["experiment", "outcome"]))
    assert guarded.ask(scopes=(Scope.OUTCOME,)) == "checkout"
    assert guarded.ask(scopes=(Scope.ADMIN, Scope.EXPERIMENT)) == "checkout"
    error = refusal(guarded, scopes=(Scope.PREDICT, Scope.ADMIN))
    assert isinstance(error, Forbidden)
    assert "predict or admin" in error.detail
    assert guarded.counts["checkout", "forbidden"] == 1


def test_a_key_of_some_models_may_not_ask_others():
    guarded = Guarded(entry(models=["churn"]))
    assert guarded.ask(model="churn") == "checkout"
    assert isinstance(refusal(guarded, model="ranking"), Forbidden)


def test_a_key_is_held_to_its_rate_and_told_when_to_come_again():
    guarded = Guarded(entry(requests_per_s=2, burst=3))
    assert [guarded.ask() for _ in range(3)] == ["checkout"] * 3
    error = refusal(guarded)
    assert isinstance(error, RateLimited)
    assert error.wait_s == pytest.approx(0.5)
    guarded.clock.now_s += 0.5
    assert guarded.ask() == "checkout"
    assert guarded.counts == {("checkout", "admitted"): 4, ("checkout", "rate_limited"): 1}


def test_what_is_forbidden_does_not_count_against_the_rate():
    guarded = Guarded(entry(requests_per_s=1, burst=1))
    for _ in range(5):
        refusal(guarded, scopes=(Scope.ADMIN,))
    assert guarded.ask() == "checkout"


def test_each_of_several_processes_has_its_share_of_a_rate_and_one_request_at_least():
    guarded = Guarded(entry(requests_per_s=40, burst=8), entry(OTHER, name="rare", requests_per_s=1), processes=4)
    assert [guarded.ask() for _ in range(2)] == ["checkout"] * 2
    error = refusal(guarded)
    assert isinstance(error, RateLimited)
    assert error.wait_s == pytest.approx(0.1)
    assert guarded.ask(f"Bearer {OTHER}") == "rare"


def test_a_key_that_is_taken_out_is_refused_at_once_and_its_successor_is_let_through():
    guarded = Guarded(entry())
    guarded.ask()
    guarded.replace(entry(), entry(OTHER))
    assert guarded.ask() == guarded.ask(f"Bearer {OTHER}") == "checkout"
    guarded.replace(entry(OTHER))
    assert isinstance(refusal(guarded), Unauthenticated)
    assert guarded.ask(f"Bearer {OTHER}") == "checkout"


def test_a_file_that_is_read_again_gives_no_key_a_new_burst_unless_its_rate_is_another():
    limited = entry(requests_per_s=1, burst=2)
    guarded = Guarded(limited)
    assert [guarded.ask(), guarded.ask()] == ["checkout"] * 2
    guarded.replace(limited, entry(OTHER))
    assert isinstance(refusal(guarded), RateLimited)
    guarded.replace(msgspec.structs.replace(limited, burst=4))
    assert [guarded.ask() for _ in range(4)] == ["checkout"] * 4


def test_rights_that_change_hold_from_the_next_request_on():
    guarded = Guarded(entry())
    assert guarded.ask() == "checkout"
    guarded.replace(entry(scopes=["outcome"]))
    assert isinstance(refusal(guarded), Forbidden)


def test_a_key_cannot_be_changed_by_whoever_gets_it():
    (key,) = key_ring([entry()], 1, 0.0).values()
    with pytest.raises(AttributeError):
        key.name = "other"
    assert replace(key, name="other").name == "other"


def test_a_look_ahead_refuses_alike_and_takes_and_counts_nothing_where_it_lets_through():
    guarded = Guarded(entry(requests_per_s=1, burst=1))
    headers = {b"authorization": f"Bearer {GOOD}".encode()}
    for _ in range(3):
        guarded.gate.admit(headers, PREDICT, ahead=True)
    assert guarded.counts == {}
    assert guarded.ask() == "checkout"
    with pytest.raises(RateLimited) as limited:
        guarded.gate.admit(headers, PREDICT, ahead=True)
    assert limited.value.wait_s == 1.0
    with pytest.raises(Forbidden):
        guarded.gate.admit(headers, (Scope.ADMIN,), ahead=True)
    assert guarded.counts == {("checkout", name): 1 for name in ("admitted", "rate_limited", "forbidden")}
