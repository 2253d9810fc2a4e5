"""Whatever a configuration file holds, it is read or refused by the one error, with a line that it has."""

import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from settings.yaml_file import ConfigurationError, read_yaml_documents

FRAGMENTS = st.sampled_from(
    [*"ab:-?[]{},&*!|>%@`#'\"1~", "<<", ": ", "- ", "\n", "\n  ", "\t", "---\n", "&x ", "*x", "!!int ", "!!set ", "é"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("ab:-#'\"\n é", max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab-: é", max_size=4), inner, max_size=4),
    max_leaves=15,
)


def documents_of(content: bytes) -> list[Any] | None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "file.yaml"
        path.write_bytes(content)
        try:
            return read_yaml_documents(path, Any)
        except ConfigurationError as error:
            line = error.line
    assert 1 <= line <= len((content.decode("utf-8", "replace") + ".").splitlines())
    return None


@given(st.lists(FRAGMENTS, max_size=30).map("".join).map(str.encode) | st.binary(max_size=60))
@example(b"!!map []")
@example(b"!!seq {}")
@example(b"!!omap [1]")
@example(b"? !!python/tuple [a]\n: 1")
@settings(max_examples=500)
def test_arbitrary_text_is_read_or_refused_with_a_line_of_the_file(content: bytes):
    documents_of(content)


@given(VALUES)
def test_what_another_program_writes_is_read_as_it_was(value: Any):
    assert documents_of(yaml.safe_dump(value, allow_unicode=True).encode()) == [value]
