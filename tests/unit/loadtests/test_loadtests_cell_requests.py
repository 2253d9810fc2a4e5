import json
import re

import numpy as np
import pytest

from loadtests.cell import CellSpec
from loadtests.cell_requests import cell_requests, predict_body, rank_body, rank_rows, request_users
from loadtests.http_connection import Response
from loadtests.rank_data import ITEMS, RANK_ITEMS, RANK_USERS, ranked_items

USERS = 200


def spec(**given) -> CellSpec:
    usual = {
        "port": 1,
        "path": "/v1/models/bench:predict",
        "connections": 1,
        "rate_per_s": None,
        "instances": 1,
        "users": USERS,
        "warmup_s": 0.0,
        "seconds": 1.0,
        "seed": 1,
        "expected_file": None,
        "treatment_share": 0.1,
    }
    return CellSpec(**usual | given)


def parts(request: bytes) -> tuple[dict[str, str], dict]:
    head, _, body = request.decode().partition("\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
    assert int(headers["content-length"]) == len(body.encode())
    return headers, json.loads(body)


def test_every_user_is_asked_about_once_before_any_is_asked_about_again():
    users = request_users(50, 1, seed=2)
    assert sorted(user for each in users for user in each) == list(range(50))
    assert users != request_users(50, 1, seed=3)


def test_a_batch_names_its_unit():
    assert json.loads(predict_body(range(3, 5))) == {
        "instances": [{"entities": {"user": "u3"}}, {"entities": {"user": "u4"}}],
        "unit": "u3",
    }


def test_a_ranking_names_its_user_once_and_each_item():
    assert json.loads(rank_body(1, [7, 3])) == {
        "entities": {"user": "u1"},
        "instances": [{"entities": {"item": "i7"}}, {"entities": {"item": "i3"}}],
    }


@pytest.mark.parametrize("kind", ["predict", "rank", "infer-json", "infer-binary"])
def test_request_id_and_trace_differ_from_request_to_request(kind, tmp_path):
    np.save(tmp_path / "expected.npy", np.zeros((RANK_USERS, RANK_ITEMS) if kind == "rank" else (1, USERS)))
    requests, _ = cell_requests(spec(kind=kind, expected_file=str(tmp_path / "expected.npy")))
    heads = [request.partition(b"\r\n\r\n")[0].decode() for request in requests]
    for pattern in (r"x-request-id: (\S{8,128})", r"traceparent: 00-([0-9a-f]{32})-", r"-([0-9a-f]{16})-01"):
        assert len({re.search(pattern, head)[1] for head in heads}) == len(requests) > 100


def test_every_stack_gets_the_same_requests_in_a_round_and_others_in_the_next():
    first, again, next_round = (cell_requests(spec(seed=seed))[0] for seed in (1, 1, 2))
    assert first == again
    assert set(first).isdisjoint(next_round)


def test_singles_and_batches_of_a_ranking_ask_for_the_same_pairs_in_the_same_order(tmp_path):
    np.save(tmp_path / "expected.npy", np.arange(RANK_USERS * RANK_ITEMS).reshape(RANK_USERS, RANK_ITEMS) / 1e4)

    def pairs(instances: int) -> list[tuple[str, str]]:
        requests, _ = cell_requests(
            spec(kind="rank", instances=instances, expected_file=str(tmp_path / "expected.npy"))
        )
        bodies = [parts(request)[1] for request in requests]
        return [(body["entities"]["user"], each["entities"]["item"]) for body in bodies for each in body["instances"]]

    assert pairs(1) == pairs(RANK_ITEMS)
    assert len(set(pairs(1))) == RANK_USERS * RANK_ITEMS


def test_each_answer_of_a_ranking_is_compared_with_its_own_pair(tmp_path):
    values = np.arange(RANK_USERS * RANK_ITEMS).reshape(RANK_USERS, RANK_ITEMS) / 1e4
    np.save(tmp_path / "expected.npy", values)
    _, check = cell_requests(spec(kind="rank", instances=RANK_ITEMS, expected_file=str(tmp_path / "expected.npy")))

    def answer(predictions: list[float]) -> Response:
        return Response(200, json.dumps({"predictions": predictions, "version": "1"}).encode())

    right = values[3].tolist()
    assert check.problem(3, answer(right)) is None
    assert "pair 1501: " in check.problem(3, answer([right[0], right[0], *right[2:]]))


def test_a_ranking_that_cannot_be_cut_into_its_requests_is_refused(tmp_path):
    np.save(tmp_path / "expected.npy", np.zeros((2, 10)))
    with pytest.raises(ValueError, match="10 items"):
        cell_requests(spec(kind="rank", instances=3, expected_file=str(tmp_path / "expected.npy")))


def test_what_must_be_checked_is_refused_without_values():
    with pytest.raises(ValueError, match="expected_file"):
        cell_requests(spec(kind="rank"))


def test_rows_of_a_ranking_are_runs_of_its_instances():
    assert rank_rows(6, 3) == [range(3), range(3, 6)]


def test_a_users_ranked_items_are_distinct_and_exist():
    items = ranked_items()
    assert items.shape == (RANK_USERS, RANK_ITEMS)
    assert all(len(set(row)) == RANK_ITEMS for row in items.tolist())
    assert 0 <= items.min() <= items.max() < ITEMS
