from types import SimpleNamespace

import numpy as np
import pytest

from contracts.inference import tensor_of
from contracts.manifest import Input, Output
from gateway.errors import InvalidRequest
from gateway.model_signature import ModelSignature
from gateway.predict_request import Instance, PredictRequest
from gateway.row_sources import SentRows, StoredRows
from tests.unit.gateway.gateway_fakes import in_loop


def planned(*inputs: Input) -> SimpleNamespace:
    signature = ModelSignature(
        model="m",
        version="1",
        inputs=inputs or (Input("x", "FP32", (-1, 2)), Input("n", "INT64", (-1,))),
        outputs=(Output("y", "FP32"),),
        batch_rows_max=64,
        server_model="m",
        server_version="1",
        binary=True,
    )
    return SimpleNamespace(signature=signature, plan=None, output_names=("y",))


X = tensor_of("x", np.array([[1, 2], [3, 4]]), "FP32")
N = tensor_of("n", np.array([5, 6]), "INT64")


@in_loop
async def test_tensors_become_rows_in_the_order_of_the_model():
    rows = await SentRows([N, X], ["y"]).rows(planned())
    assert rows.count == 2
    assert rows.inputs == (bytes(X.data), bytes(N.data))
    assert (rows.found, rows.degraded, rows.row_shapes) == ([], (), None)


@in_loop
async def test_shapes_that_the_caller_chooses_are_kept_beside_the_rows():
    wide = tensor_of("x", np.zeros((2, 7)), "FP32")
    rows = await SentRows([wide], []).rows(planned(Input("x", "FP32", (-1, -1))))
    assert rows.row_shapes == ((7,),)


@pytest.mark.parametrize(
    ("tensors", "outputs", "said"),
    [
        ([X], [], r"the inputs are \['x'\]; the model takes \['n', 'x'\]"),
        ([X, tensor_of("n", np.array([5.0, 6.0]), "FP64")], [], "input 'n' is FP64; the model takes INT64"),
        ([tensor_of("x", np.zeros((2, 3)), "FP32"), N], [], r"shape \[2, 3\]; the model takes \[-1, 2\]"),
        ([tensor_of("x", np.zeros(2), "FP32"), N], [], r"shape \[2\]; the model takes \[-1, 2\]"),
        ([X, N], ["z"], r"no output 'z'; the model has \['y'\]"),
    ],
)
@in_loop
async def test_tensors_that_do_not_fit_are_named(tensors, outputs, said):
    with pytest.raises(InvalidRequest, match=said):
        await SentRows(tensors, outputs).rows(planned())


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ([X, tensor_of("n", np.array([5]), "INT64")], "alike in all inputs: 'x' \\[2, 2\\], 'n' \\[1\\]"),
        ([tensor_of("x", np.zeros((0, 2)), "FP32")], "no rows"),
        ([tensor_of("x", np.array(1.0), "FP32")], "no rows"),
    ],
)
def test_tensors_without_one_number_of_rows_are_refused(tensors, said):
    with pytest.raises(InvalidRequest, match=said):
        SentRows(tensors, [])


@in_loop
async def test_a_version_without_features_says_how_it_is_to_be_asked():
    with pytest.raises(InvalidRequest, match="POST /v2/models/m/infer"):
        await StoredRows(None, PredictRequest()).rows(planned())  # type: ignore[arg-type]


def test_a_predict_request_has_a_row_an_instance():
    assert StoredRows(None, PredictRequest()).count == 1  # type: ignore[arg-type]
    assert StoredRows(None, PredictRequest(instances=[Instance()] * 3)).count == 3  # type: ignore[arg-type]
