"""What a cell sends, and what checks its answers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from loadtests.answer_check import AnswerCheck, StatusCheck
from loadtests.bench_data import features
from loadtests.cell import CellSpec
from loadtests.infer_load import InferCheck, infer_request
from loadtests.rank_data import RANK_VERSION, ranked_items
from loadtests.request_head import request_head, request_identities

Check = AnswerCheck | StatusCheck | InferCheck
_Values = np.ndarray[Any, np.dtype[np.float64]]


def cell_requests(spec: CellSpec) -> tuple[list[bytes], Check]:
    """Make every request of a cell, and its check. Raises ValueError where the specification contradicts itself."""
    values = None if spec.expected_file is None else np.load(spec.expected_file)
    if spec.kind == "predict":
        return _predictions(spec, values)
    if values is None:
        raise ValueError(f"{spec.kind}: every answer is checked, so there must be an expected_file")
    return _rankings(spec, values) if spec.kind == "rank" else _inferences(spec, values)


def request_users(users: int, instances: int, seed: int) -> list[range]:
    """The users of each request: all users in an order that is no order, or runs of `instances` neighbours."""
    if instances == 1:
        order = np.random.default_rng(seed).permutation(users).tolist()
        return [range(user, user + 1) for user in order]
    return [range(first, first + instances) for first in range(0, users - instances + 1, instances)]


def predict_body(users: range) -> bytes:
    """Ask for predictions for these users; more than one need a unit, which is the first."""
    instances = ",".join(f'{{"entities":{{"user":"u{user}"}}}}' for user in users)
    unit = f',"unit":"u{users[0]}"' if len(users) > 1 else ""
    return f'{{"instances":[{instances}]{unit}}}'.encode()


def rank_body(user: int, items: Sequence[int]) -> bytes:
    """Ask for predictions of these items for one user, who is named once."""
    instances = ",".join(f'{{"entities":{{"item":"i{item}"}}}}' for item in items)
    return f'{{"entities":{{"user":"u{user}"}},"instances":[{instances}]}}'.encode()


def rank_rows(pairs: int, instances: int) -> list[range]:
    """The pairs of user and item of each request: runs of `instances`, user by user, as one user's callers come."""
    return [range(first, first + instances) for first in range(0, pairs - instances + 1, instances)]


def _predictions(spec: CellSpec, values: _Values | None) -> tuple[list[bytes], Check]:
    users = request_users(spec.users, spec.instances, spec.seed)
    requests = _with_heads(spec, [predict_body(each) for each in users])
    if values is None:
        return requests, StatusCheck()
    return requests, AnswerCheck({str(i + 1): row for i, row in enumerate(values.tolist())}, users)


def _rankings(spec: CellSpec, values: _Values) -> tuple[list[bytes], Check]:
    users, items_each = values.shape
    if items_each % spec.instances:
        raise ValueError(f"rank: {items_each} items of a user cannot be asked for by {spec.instances}")
    items = ranked_items().ravel().tolist()
    rows = rank_rows(users * items_each, spec.instances)
    bodies = [rank_body(each[0] // items_each, items[each[0] : each[-1] + 1]) for each in rows]
    return _with_heads(spec, bodies), AnswerCheck({RANK_VERSION: values.ravel().tolist()}, rows, noun="pair ")


def _inferences(spec: CellSpec, values: _Values) -> tuple[list[bytes], Check]:
    order = [each[0] for each in request_users(spec.users, 1, spec.seed)]
    rows, binary = features(spec.users), spec.kind == "infer-binary"
    identities = request_identities(len(order), spec.seed)
    requests = [
        infer_request(spec.path, rows[user], identity, binary=binary)
        for user, identity in zip(order, identities, strict=True)
    ]
    return requests, InferCheck([float(values[0][user]) for user in order], binary=binary)


def _with_heads(spec: CellSpec, bodies: list[bytes]) -> list[bytes]:
    identities = request_identities(len(bodies), spec.seed)
    return [
        request_head(spec.path, "application/json", len(body), identity) + body
        for body, identity in zip(bodies, identities, strict=True)
    ]
