"""Leaving, and callers that leave: nobody else may notice."""

import http.client
import json
import random
import signal
import socket
import threading
import time

import numpy as np
import psutil
import pytest

from tests.unit.model_workers.published_models import publish_lightgbm_classifier
from tests.unit.model_workers.running_worker import binary_request, running_worker, wait_until

pytestmark = pytest.mark.fault

INFER = "/v2/models/diagnosis/versions/2/infer"
CLIENTS = 8


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return tmp_path_factory.mktemp("repository")


@pytest.fixture(scope="module")
def model(repository):
    return publish_lightgbm_classifier(repository)


class PooledClient(threading.Thread):
    """Sends on one keep-alive connection until an answer says `connection: close`, as a pool of workers allows."""

    def __init__(self, port, body, headers):
        super().__init__()
        self._port, self._body, self._headers = port, body, headers
        self.answers, self.faults, self.told_to_close = 0, [], False

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            while not self.told_to_close:
                connection.request("POST", INFER, self._body, self._headers)
                response = connection.getresponse()
                response.read()
                self.told_to_close = response.getheader("connection") == "close"
                if response.status != 200:
                    self.faults.append(response.status)
                self.answers += 1
        except (OSError, http.client.HTTPException) as fault:
            self.faults.append(fault)
        finally:
            connection.close()


def test_sigterm_under_keep_alive_load_ends_with_exit_code_0_and_no_client_sees_an_error(repository, model, tmp_path):
    with running_worker(repository, tmp_path / "log", "--shutdown-grace-s", "1") as worker:
        clients = [
            PooledClient(worker.port, *binary_request("features", model.rows[:4], "FP32")) for _ in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        wait_until(lambda: all(client.answers > 20 for client in clients))
        worker.process.send_signal(signal.SIGTERM)
        for client in clients:
            client.join(10)
        # All have left; in the grace a newcomer is still served, and told that the worker is not ready.
        assert worker.ask("GET", "/v2/health/ready")[0] == 503
        status, headers, _ = worker.ask("POST", INFER, *binary_request("features", model.rows[:4], "FP32"))
        assert (status, headers["connection"]) == (200, "close")
        assert worker.process.wait(10) == 0
    assert [client.faults for client in clients] == [[]] * CLIENTS
    assert all(client.told_to_close for client in clients)


def test_a_request_in_flight_when_the_grace_ends_still_gets_its_answer(repository, model, tmp_path):
    with running_worker(repository, tmp_path / "log", "--shutdown-grace-s", "0") as worker:
        body, headers = binary_request("features", model.rows[:1], "FP32")
        head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
        with socket.create_connection(("127.0.0.1", worker.port), timeout=10) as slow:
            slow.sendall(head.encode() + body[:-1])
            # Another connection's answer shows that the worker's loop has read what was sent before it.
            assert worker.ask("GET", "/v2/health/live")[0] == 200
            worker.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not listens(worker.port), 10)
            slow.sendall(body[-1:])
            answer = slow.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert worker.process.wait(10) == 0


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return False
    return True


def test_sigint_leaves_without_the_grace(repository, model, tmp_path):
    with running_worker(repository, tmp_path / "log", "--shutdown-grace-s", "600") as worker:
        assert worker.stop(signal.SIGINT) == 0


def test_sigint_cuts_a_grace_short_that_has_begun(repository, model, tmp_path):
    with running_worker(repository, tmp_path / "log", "--shutdown-grace-s", "600") as worker:
        worker.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not worker.is_ready(), 10)
        assert worker.stop(signal.SIGINT) == 0


def test_clients_that_hang_up_harm_no_other_and_leave_nothing_behind(repository, model, tmp_path):
    chance = random.Random(0)
    body, headers = binary_request("features", model.rows, "FP32")
    head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    request = (head + "".join(f"{n}: {v}\r\n" for n, v in headers.items()) + "\r\n").encode() + body
    with running_worker(repository, tmp_path / "log") as worker:
        process = psutil.Process(worker.process.pid)
        files_before = process.num_fds()
        stayer = PooledClient(worker.port, *binary_request("features", model.rows[:4], "FP32"))
        stayer.start()
        for _ in range(200):
            with socket.create_connection(("127.0.0.1", worker.port), timeout=5) as leaver:
                leaver.sendall(request[: chance.randrange(1, len(request) + 1)])
        scores = worker.score("diagnosis", "2", "features", model.rows, "FP32")["malignant"]
        np.testing.assert_allclose(scores, model.scores, atol=1e-6)
        wait_until(lambda: process.num_fds() <= files_before + 2, 10)
        # The one who stayed goes on asking, so that there may be rows of theirs at this instant, but not at each.
        nothing_waits = b'waiting_rows{model="diagnosis",version="2"} 0.0'
        wait_until(lambda: nothing_waits in worker.ask("GET", "/metrics")[2], 10)
        worker.process.send_signal(signal.SIGTERM)
        stayer.join(10)
    assert stayer.faults == []
    assert [line for line in worker.log_lines() if line["level"] != "info"] == []


def test_a_worker_under_hostile_and_good_load_answers_the_good_one_in_time(repository, model, tmp_path):
    hostile = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1 << 27], "data": []}]}).encode()
    with running_worker(repository, tmp_path / "log") as worker:
        worst_s = 0.0
        for _ in range(50):
            assert worker.ask("POST", INFER, hostile)[0] == 400
            began = time.monotonic()
            worker.score("diagnosis", "2", "features", model.rows[:1], "FP32")
            worst_s = max(worst_s, time.monotonic() - began)
    assert worst_s < 1
