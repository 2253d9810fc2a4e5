import json
from itertools import pairwise

import httptools
import pytest

from tests.hostile.answers import Answer, AnswerReader, NotAnAnswer, problem_of
from tests.hostile.hostile_requests import HostileRequests, material

BATCHES = 300


class Messages:
    """Counts whole requests."""

    def __init__(self):
        self.count = 0

    def on_message_complete(self):
        self.count += 1


@pytest.mark.parametrize("admin", [False, True], ids=["data port", "admin port"])
def test_the_same_seed_draws_the_same_requests(admin):
    found = material(admin=admin)
    one, same, other = (HostileRequests(seed, found, admin=admin) for seed in (7, 7, 8))
    drawn = [one.batch(20) for _ in range(20)]
    assert drawn == [same.batch(20) for _ in range(20)]
    assert drawn != [other.batch(20) for _ in range(20)]


@pytest.mark.parametrize("admin", [False, True], ids=["data port", "admin port"])
def test_an_answer_is_owed_to_each_request_of_a_batch_but_the_last(admin):
    supply = HostileRequests(3, material(admin=admin), admin=admin)
    for _ in range(BATCHES):
        batch = supply.batch(8)
        assert all(hostile.framed for hostile in batch[:-1])
        messages = Messages()
        parser = httptools.HttpRequestParser(messages)
        parser.feed_data(b"".join(hostile.data for hostile in batch if hostile.framed))
        assert messages.count == sum(hostile.framed for hostile in batch)


def test_answers_are_cut_out_of_what_comes_wherever_it_was_cut_before():
    stream = b"HTTP/1.1 100 Continue\r\n\r\n" + b"".join(
        b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, size, b"b" * size)
        for status, size in ((200, 3), (404, 0), (503, 20))
    )
    for size in (1, 7, len(stream)):
        reader = AnswerReader()
        pieces = [stream[a:b] for a, b in pairwise([*range(0, len(stream), size), len(stream)])]
        answers = [answer for piece in pieces for answer in reader.feed(piece)]
        assert [(answer.status, len(answer.body)) for answer in answers] == [(200, 3), (404, 0), (503, 20)]


@pytest.mark.parametrize("answer", [b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"])
def test_what_is_no_answer_is_told(answer):
    with pytest.raises(NotAnAnswer):
        AnswerReader().feed(answer)


@pytest.mark.parametrize(
    ("status", "document", "is_fine"),
    [
        (200, {"predictions": [1.0]}, True),
        (200, {"predictions": [float("nan")]}, False),
        (422, {"code": "missing_feature"}, True),
        (400, {"error": "no"}, True),
        (400, {"detail": "no"}, False),
        (500, {"code": "internal_error"}, False),
        (503, {"code": "overloaded"}, True),
        (502, {"code": "x"}, False),
    ],
)
def test_a_servers_fault_a_nameless_refusal_and_a_nan_are_offences(status, document, is_fine):
    assert (problem_of(Answer(status, closes=False, body=json.dumps(document).encode())) is None) == is_fine
