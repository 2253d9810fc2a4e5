import numpy as np
import pytest

from contracts.inference import RequestedOutput, Tensor, tensor_of
from contracts.manifest import Input, Output
from model_workers.errors import InputRefused, RequestTooLarge
from model_workers.request_rows import RowReader
from tests.unit.model_workers.published_models import onnx_manifest

INPUTS = (Input("x", "FP32", (-1, 2)), Input("word", "BYTES", (-1,)))
OUTPUTS = (Output("p", "FP32"), Output("q", "FP32"))


@pytest.fixture
def reader():
    return RowReader(onnx_manifest("m", "1", 2, inputs=INPUTS, outputs=OUTPUTS), rows_max=4)


def x(rows=2, columns=2, dtype="FP32", name="x"):
    return tensor_of(name, np.ones((rows, columns)), dtype)


def word(*words):
    return tensor_of("word", np.array(words, dtype=object), "BYTES")


def test_inputs_become_arrays_in_the_order_of_the_manifest(reader):
    rows = reader.rows([word("a", "ü"), x()])
    assert list(rows.arrays) == ["x", "word"]
    assert rows.arrays["word"].tolist() == ["a", "ü"]
    assert rows.count == 2
    assert rows.signature == ((2,), ())


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ([x()], r"the inputs are \['x'\]; this model takes \['word', 'x'\]"),
        ([x(), word("a", "b"), x(name="y")], r"the inputs are \['word', 'x', 'y'\]"),
        ([x(dtype="FP64"), word("a", "b")], "input 'x' is FP64; this model takes FP32"),
        ([x(columns=3), word("a", "b")], r"input 'x' has shape \[2, 3\]; this model takes \[-1, 2\]"),
        ([tensor_of("x", np.ones(2), "FP32"), word("a", "b")], r"input 'x' has shape \[2\]"),
        ([tensor_of("x", np.ones(()), "FP32"), word("a", "b")], r"input 'x' has shape \[\]"),
        ([x(rows=3), word("a", "b")], "the inputs differ in rows: 'x' has 3, 'word' has 2"),
        ([x(rows=0), word()], "the inputs have no rows"),
        ([x(rows=1), Tensor("word", "BYTES", (1,), b"\x01\x00\x00\x00\xff")], "holds an element that is not UTF-8"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(reader, tensors, said):
    with pytest.raises(InputRefused, match=said):
        reader.rows(tensors)


def test_more_rows_than_a_queue_holds_are_refused(reader):
    with pytest.raises(RequestTooLarge, match="rows of one request: 5 given, at most 4 taken"):
        reader.rows([x(rows=5), word(*"abcde")])


def test_a_free_dimension_takes_any_width_and_tells_signatures_apart():
    reader = RowReader(onnx_manifest("m", "1", 2, inputs=(Input("x", "FP32", (-1, -1)),)), rows_max=4)
    assert reader.rows([x(columns=3)]).signature != reader.rows([x(columns=4)]).signature


def test_no_requested_output_means_all_of_them(reader):
    assert reader.outputs([]) == ("p", "q")


def test_requested_outputs_keep_their_order(reader):
    assert reader.outputs([RequestedOutput("q"), RequestedOutput("p")]) == ("q", "p")


def test_an_unknown_output_is_refused_with_the_known_ones(reader):
    with pytest.raises(InputRefused, match=r"there is no output 'r'; this model has \['p', 'q'\]"):
        reader.outputs([RequestedOutput("r")])
