import io
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from rich.console import Console

from experiments_cli.acknowledgements import LOOK_EVERY_S, wait_for_gateways
from experiments_cli.admin_answers import Acknowledgement, ExperimentsStatus
from experiments_cli.admin_api import AdminApi
from experiments_cli.errors import GatewayUnreachable, NotAcknowledged
from experiments_cli.terminal import Terminal
from tests.unit.experiments_cli.conftest import Program
from tests.unit.experiments_cli.documents import document
from tests.unit.experiments_cli.fake_admin import FakeAdmin

Statuses = Callable[[float], list[dict[str, int]]]


class Clock:
    """Time that passes by sleeping only."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s


class Gateways(AdminApi):
    """Says who has acknowledged what, by the time since the beginning."""

    def __init__(self, clock: Clock, heard: Statuses) -> None:
        self._clock, self._heard = clock, heard

    def status(self) -> list[ExperimentsStatus]:
        return [
            ExperimentsStatus(
                acknowledged={name: Acknowledgement(revision=r, age_s=0.2) for name, r in process.items()}
            )
            for process in self._heard(self._clock.now_s - 100.0)
        ]


def waited(heard: Statuses, wait_s: float = 10.0) -> tuple[bool | None, float]:
    clock = Clock()
    console = Console(file=io.StringIO())
    terminal = Terminal(
        out=console,
        err=console,
        ask=None,
        now=lambda: datetime.now(UTC),
        monotonic=lambda: clock.now_s,
        sleep=clock.sleep,
    )
    return wait_for_gateways(Gateways(clock, heard), 7, wait_s, terminal), clock.now_s - 100.0


def test_it_waits_until_the_last_gateway_has_the_revision():
    done, took_s = waited(lambda s: [{"a": 7, "b": 7 if s >= 2 else 6}])
    assert (done, took_s) == (True, pytest.approx(2.0, abs=2 * LOOK_EVERY_S))


def test_a_later_revision_is_as_good():
    assert waited(lambda _s: [{"a": 9, "b": 7}]) == (True, 0.0)


def test_of_several_processes_the_one_that_has_heard_the_most_counts():
    assert waited(lambda _s: [{"a": 6}, {"a": 7, "b": 7}])[0] is True


def test_those_that_are_late_are_named_when_the_time_is_over():
    with pytest.raises(NotAcknowledged, match=r"within 3 s: b has revision 6, said 0\.2 s ago; a gateway takes it"):
        waited(lambda _s: [{"a": 7, "b": 6}], 3)


def test_where_nobody_has_said_anything_that_is_no_acknowledgement():
    with pytest.raises(NotAcknowledged, match="no gateway has said anything"):
        waited(lambda _s: [], 1)


def test_a_gateway_that_cannot_be_asked_meanwhile_is_asked_again():
    def heard(since_s: float) -> list[dict[str, int]]:
        if since_s < 1:
            raise GatewayUnreachable("http://g", "refused")
        return [{"a": 7}]

    assert waited(heard)[0] is True


def test_a_change_that_is_late_somewhere_is_exit_code_1_and_made_all_the_same(admin: FakeAdmin, program: Program):
    admin.put(document())
    admin.acknowledged = lambda revision: {"gateway-a": revision, "gateway-b": 1}
    done = program("ramp", "churn-q4", "5%", "--wait-s", "0")
    assert done.code == 1
    assert "revision 2 is stored, but was not acknowledged everywhere within 0 s: gateway-b has revision 1" in done.err
    assert admin.register.revision == 2


def test_nobody_waits_with_no_wait_and_the_flag_wins_over_its_variable(
    admin: FakeAdmin, program: Program, monkeypatch: pytest.MonkeyPatch
):
    admin.put(document())
    admin.acknowledged = lambda _revision: {}
    assert program("ramp", "churn-q4", "5%", "--no-wait").code == 0
    monkeypatch.setenv("SEKISHO_NO_WAIT", "1")
    assert program("ramp", "churn-q4", "6%").code == 0
    assert program("ramp", "churn-q4", "7%", "--wait", "--wait-s", "0").code == 1


def test_a_key_that_may_not_read_the_status_is_no_failure(admin: FakeAdmin, program: Program):
    admin.put(document())
    admin.keys = {"sk_1": ("ci", {"experiment"})}
    done = program("ramp", "churn-q4", "5%", "--key", "sk_1")
    assert done.code == 0
    assert "it is not known which gateways have revision 2: key 'ci' may not do this" in done.err
    assert admin.trail[-1]["actor"] == "ci"


def test_every_process_of_a_gateway_is_heard(admin: FakeAdmin, program: Program):
    admin.put(document())
    admin.processes = 3
    assert program("ramp", "churn-q4", "5%").code == 0
