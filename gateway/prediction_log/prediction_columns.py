"""Whole columns from tuples of values: the usual case by few calls of C, whatever does not fit it by a general way.

Between two flushes the event loop has filled the processor's caches with its own. A call of pyarrow that is not in them
takes 100 µs for its first time and 2 for its second, so these few are used wherever they serve: `from_buffers` over
numpy, `slice` of what was made before, and `pa.array` for texts.
"""

from array import array
from collections.abc import Callable, Hashable, Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
import pyarrow as pa

from contracts.prediction_record import DICTIONARY, TIMESTAMP

KEYS_MAX: Final = 256
"""Distinct keys that a lookup remembers from batch to batch."""

CONSTANT_ROWS: Final = 1_024
"""Rows that a constant column is made of at first; more where more are asked for."""

MICROSECONDS_MAX: Final = 2**31 - 1

STRING: Final = pa.string()
INT32: Final = pa.int32()

TYPECODES: Final = {pa.float32(): "f", pa.float64(): "d"}
"""What `array` calls the usual kinds of a score."""

Numbers = np.ndarray[Any, Any]
Counts = np.ndarray[Any, np.dtype[np.int64]]
"""Rows by entry."""


class Constant:
    """A column of one value, which is made once. Each batch has a slice of it. value: an array of one element."""

    def __init__(self, value: pa.Array) -> None:
        self._value = value
        self._array = self._made(CONSTANT_ROWS)

    def rows(self, count: int) -> pa.Array:
        """Return the column, `count` rows long."""
        if count > len(self._array):
            self._array = self._made(count)
        return self._array.slice(0, count)

    def _made(self, count: int) -> pa.Array:
        return self._value.take(numbers(np.zeros(count, np.int32), INT32))


class Lookup:
    """Columns that follow from a key of which there are few: worked out once a key, and remembered.

    columns_of: some values → columns, a row each. A key that is made of an `id` needs a value that keeps the object.
    """

    def __init__(self, columns_of: Callable[[list[Any]], list[pa.Array]]) -> None:
        self._columns_of = columns_of
        self._values: dict[Hashable, Any] = {}
        self._codes: dict[Hashable, int] = {}
        self._columns: list[pa.Array] = []
        self._constants: dict[Hashable, list[Constant]] = {}

    def columns(self, keys: Sequence[Hashable], values: Sequence[Any]) -> list[pa.Array]:
        """Return the columns of these values. keys: of the values, one each."""
        distinct = set(keys)
        if not distinct <= self._values.keys():
            self._learn(dict(zip(keys, values, strict=True)))
        if len(distinct) == 1:
            return [constant.rows(len(keys)) for constant in self._constants_of(keys[0])]
        codes = numbers(np.fromiter(map(self._codes.__getitem__, keys), np.int32, len(keys)), INT32)
        return [column.take(codes) for column in self._columns]

    def _learn(self, found: dict[Hashable, Any]) -> None:
        known = self._values | found
        self._values = known if len(known) <= KEYS_MAX else found
        self._codes = {key: code for code, key in enumerate(self._values)}
        self._columns = self._columns_of(list(self._values.values()))
        self._constants.clear()

    def _constants_of(self, key: Hashable) -> list[Constant]:
        constants = self._constants.get(key)
        if constants is None:
            code = self._codes[key]
            constants = self._constants[key] = [Constant(column.slice(code, 1)) for column in self._columns]
        return constants


def words(values: Sequence[str | None]) -> pa.Array:
    """Make a column of words that repeat."""
    return pa.array(values, STRING).dictionary_encode().cast(DICTIONARY)


def texts(values: Sequence[Any]) -> pa.Array:
    """Make a column of texts. A number is its decimal text."""
    try:
        return pa.array(values, STRING)
    except pa.ArrowTypeError:
        return pa.array([None if value is None else str(value) for value in values], STRING)


def numbers(values: Numbers, kind: pa.DataType) -> pa.Array:
    """Make a column of numbers that lie in memory as Arrow has them."""
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def integers(values: Sequence[int | None], dtype: type[np.signedinteger[Any]], kind: pa.DataType) -> pa.Array:
    """Make a column of integers, None for nulls. Raises OverflowError, or ArrowInvalid beside a null."""
    try:
        return numbers(np.fromiter(values, dtype, len(values)), kind)
    except TypeError:
        return pa.array(values, kind)


def times(values_us: Sequence[int | None]) -> pa.Array:
    """Make a column of times, UTC."""
    return integers(values_us, np.int64, TIMESTAMP)


def durations(columns_us: Sequence[Sequence[int]]) -> list[pa.Array]:
    """Make columns of durations, which end at MICROSECONDS_MAX."""
    rows = len(columns_us[0])
    count = rows * len(columns_us)
    try:
        whole = np.fromiter(chain.from_iterable(columns_us), np.int32, count)
    except OverflowError:
        wide = np.fromiter(chain.from_iterable(columns_us), np.int64, count)
        whole = np.minimum(wide, MICROSECONDS_MAX).astype(np.int32)
    return [numbers(whole[at : at + rows], INT32) for at in range(0, count, rows)]


def scores(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Make a column of a model's output, None for nulls. Raises ArrowException where a value is not of the kind."""
    code = TYPECODES.get(kind)
    if code is None:
        return pa.array(values, kind)
    try:
        whole = array(code, values)  # not numpy, to which None is a float: NaN
    except TypeError:
        return pa.array(values, kind)
    return pa.Array.from_buffers(kind, len(whole), [None, pa.py_buffer(whole)])


def spread(columns: list[pa.Array], counts: Counts | None) -> list[pa.Array]:
    """Repeat each entry's value for each of its rows. counts: None where every entry has one row."""
    if counts is None:
        return columns
    entry_of_row = pa.array(np.repeat(np.arange(len(counts)), counts))
    return [column.take(entry_of_row) for column in columns]


def rows_within(counts: Counts) -> pa.Array:
    """Number the rows of each entry from 0."""
    first_rows = np.cumsum(counts) - counts
    return pa.array((np.arange(counts.sum()) - np.repeat(first_rows, counts)).astype(np.int32))
