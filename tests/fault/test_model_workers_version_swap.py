"""A new version of one model every second, under load: nobody may notice but by the answer."""

import http.client
import json
import os
import threading
import time
from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime

import pytest

from tests.unit.model_workers.admin_port import AdminPort
from tests.unit.model_workers.constant_models import publish_constant
from tests.unit.model_workers.running_worker import free_port, running_worker, wait_until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

LOAD_S = float(os.environ.get("SEKISHO_TEST_SWAP_SECONDS", "60"))
PUBLISH_EVERY_S = 1.0
SWAPS_MIN = int(LOAD_S * 50 / 60)
CONNECTIONS = 4
PAUSE_S = 0.002  # the load is there to be in flight at every instant, not to fill two cores
CLOCK_SLACK_S = 0.005  # the log tells milliseconds

BODY = json.dumps({"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 2], "data": [3, 4]}]}).encode()


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, and between which instants it was made."""

    version: int
    value: float
    sent_s: float
    received_s: float


class Caller(threading.Thread):
    """Asks without a version on one keep-alive connection until it is told to stop."""

    def __init__(self, port, stop):
        super().__init__()
        self._port, self._stop_asking = port, stop
        self.answers, self.faults = [], []

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            while not self._stop_asking.wait(PAUSE_S):
                self._ask(connection)
        except (OSError, http.client.HTTPException) as fault:
            self.faults.append(fault)
        finally:
            connection.close()

    def _ask(self, connection):
        sent_s = time.time()
        connection.request("POST", "/v2/models/churn/infer", BODY)
        response = connection.getresponse()
        document = json.loads(response.read())
        if response.status != 200:
            self.faults.append((response.status, document))
            return
        value = document["outputs"][0]["data"][0]
        self.answers.append(Answer(int(document["model_version"]), value, sent_s, time.time()))


def moments(worker, message):
    """Read from the log when each version was loaded, or unloaded, in seconds since the epoch."""
    return {
        int(line["version"]): datetime.fromisoformat(line["ts"]).timestamp()
        for line in worker.log_lines()
        if line["message"].startswith(message)
    }


def was_served(answer, loaded):
    """Say whether the version was the newest loaded one at any instant between the question and the answer."""
    versions = sorted(loaded)
    after = versions[bisect_right(versions, answer.version) :]
    began_s, ended_s = loaded[answer.version], loaded[after[0]] if after else float("inf")
    return began_s <= answer.received_s + CLOCK_SLACK_S and ended_s >= answer.sent_s - CLOCK_SLACK_S


def swap_by_polling(worker, repository, admin, version):
    publish_constant(repository, "churn", version)


def swap_by_admin(worker, repository, admin, version):
    publish_constant(repository, "churn", version)
    admin.done("load", "churn")


def swap_under_load(worker, repository, admin, swap, load_s):
    """Swap every second under load. Returns the callers."""
    stop = threading.Event()
    callers = [Caller(worker.port, stop) for _ in range(CONNECTIONS)]
    for caller in callers:
        caller.start()
    ends_s, version = time.monotonic() + load_s, 1
    pace = threading.Event()
    while time.monotonic() < ends_s:
        version += 1
        swap(worker, repository, admin, version)
        pace.wait(PUBLISH_EVERY_S)
    wait_until(lambda: admin.states().get(f"churn@{version}") == "READY", 10)
    stop.set()
    for caller in callers:
        caller.join(20)
    return callers


@pytest.mark.parametrize(
    ("flags", "swap", "load_s", "swaps_min"),
    [
        (("--poll-s", "0.2"), swap_by_polling, LOAD_S, SWAPS_MIN),
        ((), swap_by_admin, min(LOAD_S, 10), min(SWAPS_MIN, 8)),
    ],
    ids=["by polling", "by explicit loads"],
)
def test_a_swap_every_second_under_load_fails_no_request_and_each_answer_is_of_the_version_that_served(
    tmp_path, flags, swap, load_s, swaps_min
):
    repository, admin = tmp_path / "repository", AdminPort(free_port())
    repository.mkdir()
    publish_constant(repository, "churn", 1)
    with running_worker(repository, tmp_path / "log", "--latest", "1", *flags, *admin.flags) as worker:
        callers = swap_under_load(worker, repository, admin, swap, load_s)
        loaded, unloaded = moments(worker, "loaded "), moments(worker, "unloaded ")
        states = admin.states()
    answers = [answer for caller in callers for answer in caller.answers]
    assert [caller.faults for caller in callers] == [[]] * CONNECTIONS
    assert len(answers) > 100 * load_s
    assert [answer for answer in answers if answer.value != answer.version] == []
    assert [answer for answer in answers if not was_served(answer, loaded)] == []
    assert len({answer.version for answer in answers}) - 1 >= swaps_min
    assert unloaded.keys() == loaded.keys() - {max(loaded)}
    assert [name for name, state in states.items() if state == "READY"] == [f"churn@{max(loaded)}"]
    assert [line for line in worker.log_lines() if line["level"] != "info"] == []
