"""Whatever a document or an expression says, it is read or refused by the one error."""

import contextlib
import string
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from experiments import ExperimentError, assign, parse_experiment
from experiments.definition import KEYS
from experiments.targeting import TargetingError, compile_condition

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10_005) | st.floats() | st.text("ab7./-é", max_size=4) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("ab7", max_size=2) | st.integers(0, 3) | st.booleans() | st.none(), inner, max_size=3)
    ),
    max_leaves=6,
)
RIGHT = {
    "experiment": "e",
    "model": "m",
    "unit": "user",
    "state": "running",
    "variants": [{"name": "a", "version": "1", "bp": 10_000}],
}
PARTS = ("18", "-1", "'x'", "[1, 2]", "==", ">=", "in", "not", "and", "or", "true", "false", "is", "**")
TOKENS = st.sampled_from([*"ab()[],<.:#\\\n", *PARTS, "lambda", "if", "else", "None", "f''"])


@given(st.dictionaries(st.sampled_from(sorted(KEYS)), VALUES, max_size=4))
@settings(max_examples=300)
def test_an_arbitrary_document_is_read_or_refused_with_its_key(changes: dict[str, Any]):
    with contextlib.suppress(ExperimentError):
        read = parse_experiment(RIGHT | changes)
        assign((read,), "p7", {"a": 1})


@given(
    st.lists(TOKENS, max_size=12).map(" ".join) | st.text(string.printable, max_size=40),
    st.dictionaries(st.sampled_from("ab"), VALUES, max_size=2),
)
@example("1if a else 2", {})
@example("a == '\\d'", {"a": 1})
@settings(max_examples=400)
def test_an_arbitrary_expression_is_a_condition_or_refused(expression: str, attributes: dict[str, Any]):
    with contextlib.suppress(TargetingError):
        assert compile_condition(expression)(attributes) in (True, False)
