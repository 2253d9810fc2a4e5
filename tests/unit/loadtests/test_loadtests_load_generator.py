import asyncio
import contextlib
import json
import time

import numpy as np
import pytest

from loadtests.cell import CellSpec
from loadtests.load_generator import LoadGenerator

USERS = 50


class Server:
    """Answers each request with the value of its user, unless `spoil` says otherwise."""

    def __init__(self, spoil=None, delay_s=0.0):
        self._spoil, self._delay_s, self._served = spoil, delay_s, 0
        self.conversations = []

    async def handle(self, reader, writer):
        self.conversations.append(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                request = json.loads(await reader.readexactly(length))
                await asyncio.sleep(self._delay_s)
                self._served += 1
                if self._spoil == "close" and self._served > 20:
                    break
                writer.write(self._response(request))
        writer.close()

    def _response(self, request):
        users = [int(each["entities"]["user"][1:]) for each in request["instances"]]
        version = "2" if users[0] % 10 == 0 else "1"
        predictions = [user / USERS for user in users]
        if self._spoil == "value" and users[0] == 7:
            predictions[0] += 0.001
        if self._spoil == "split":
            version = "2"
        body = json.dumps({"predictions": predictions, "version": version}).encode()
        return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body


@pytest.fixture
def generate(tmp_path):
    expected = tmp_path / "expected.npy"
    np.save(expected, np.stack([np.arange(USERS) / USERS] * 2))

    def run(server: Server, tell=None, **settings):
        async def main():
            listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
            async with listening:
                given = {
                    "port": listening.sockets[0].getsockname()[1],
                    "path": "/v1/models/bench:predict",
                    "connections": 4,
                    "rate_per_s": None,
                    "instances": 1,
                    "users": USERS,
                    "warmup_s": 0.05,
                    "seconds": 0.3,
                    "seed": 1,
                    "expected_file": str(expected),
                    "treatment_share": 0.1,
                }
                result = await LoadGenerator(CellSpec(**given | settings), tell).run()
                await asyncio.gather(*server.conversations)
                return result

        return asyncio.run(main())

    return run


def test_a_closed_loop_of_right_answers_has_a_rate_and_no_error(generate):
    result = generate(Server())
    assert result.errors == {}
    assert result.answers > 0
    assert result.rate_per_s == pytest.approx(result.answers / 0.3)
    assert result.p50_ms <= result.p99_ms <= result.p999_ms <= result.max_ms
    assert result.units_by_version == {"1": 45, "2": 5}


def test_one_wrong_value_among_many_right_ones_is_found(generate):
    result = generate(Server(spoil="value"))
    assert [problem[:3] for problem in result.errors] == ["u7:"]


def test_a_split_with_the_wrong_share_is_an_error(generate):
    (problem,) = generate(Server(spoil="split")).errors
    assert "version 2 answered 50 of 50 units" in problem


def test_connections_that_the_server_closes_are_errors_and_not_waited_for(generate):
    result = generate(Server(spoil="close"))
    assert sum(result.errors.values()) == 4
    assert all("connection closed" in problem for problem in result.errors)


def test_batches_are_checked_row_by_row(generate):
    result = generate(Server(), instances=25, connections=1)
    assert result.errors == {}
    assert result.answers > 0


def test_an_open_loop_offers_its_rate_whatever_the_server_does(generate):
    result = generate(Server(), rate_per_s=200)
    assert result.errors == {}
    assert result.answers + result.unanswered == pytest.approx(60, abs=25)


def test_open_loop_latency_includes_the_wait_for_a_busy_server(generate):
    # One connection serves at most 50 requests a second; 200 are due, so most of the last one's time is waiting.
    result = generate(Server(delay_s=0.02), rate_per_s=200, connections=1)
    assert result.max_ms > 5 * 20
    assert result.rate_per_s <= 50


def test_a_running_cell_tells_of_each_interval_and_the_intervals_are_the_whole(generate):
    told = []
    result = generate(Server(), rate_per_s=400, warmup_s=0.0, report_every_s=0.1, tell=told.append)
    assert len(told) >= 2
    assert sum(sum(each.buckets.values()) for each in told) == result.answers
    assert sum(each.seconds for each in told) == pytest.approx(told[-1].at_s, abs=0.05)
    assert max(each.max_ns for each in told) / 1e6 == result.max_ms
    assert told[-1].errors == 0


def test_a_run_without_a_connection_left_ends_at_once(generate):
    began_s = time.monotonic()
    for rate_per_s in (None, 200):
        result = generate(Server(spoil="close"), rate_per_s=rate_per_s, seconds=30)
        assert sum(result.errors.values()) == 4
    assert time.monotonic() - began_s < 25
