"""Arrow columns → what the bulk encoder takes, with every value checked against its feature's declared type."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_store.bulk_rows import ColumnValues
from feature_store.dtypes import ARRAY_TYPE, FLOATS, NATIVE_DATATYPE, Dtype
from feature_store.errors import FeatureStoreError
from feature_store.feature_value import STRING_BYTES_MAX
from feature_store.row_keys import ENTITY_ID_BYTES_MAX
from feature_store.row_layout import PlacedColumn
from feature_store.row_writer import EVENT_TIME_US_MAX

_TIME = pa.timestamp("us", "UTC")
ARROW_TYPE: dict[Dtype, Any] = {
    Dtype.FLOAT16: pa.float16(),
    Dtype.FLOAT32: pa.float32(),
    Dtype.FLOAT64: pa.float64(),
    Dtype.INT32: pa.int32(),
    Dtype.INT64: pa.int64(),
    Dtype.BOOL: pa.bool_(),
    Dtype.STRING: pa.large_string(),
    Dtype.TIMESTAMP: _TIME,
}


class WrongColumn(FeatureStoreError):
    """A column of the data cannot be loaded. `row` counts from 1 within the whole load; None: the column as such."""

    def __init__(self, column: str, row: int | None, problem: str) -> None:
        where = f"column {column}" if row is None else f"column {column}, row {row}"
        super().__init__(f"{where}: {problem}")
        self.column, self.row, self.problem = column, row, problem


def feature_values(column: PlacedColumn, data: pa.Array, first_row: int) -> ColumnValues:
    """Convert one feature's column. A float NaN is null; an infinity, or a value that does not fit, is refused.

    Numbers convert where no value changes but by a float's rounding. `first_row` numbers the rows in errors. Raises
    WrongColumn.
    """
    if pa.types.is_dictionary(data.type):
        data = data.dictionary_decode()
    if column.length is not None:
        return _list_values(column, data, first_row)
    if column.dtype is Dtype.STRING:
        return _string_values(column, data, first_row)
    values, null = _numbers(column, data, first_row)
    if column.dtype in FLOATS:
        null |= np.isnan(values)
        _refuse_infinite(column, values, null, first_row)
    return ColumnValues(values, null)


def entity_ids(name: str, data: pa.Array, first_row: int) -> list[bytes]:
    """Entity ids in UTF-8, from text or integers. Raises WrongColumn for a null, empty or overlong one, by row."""
    if pa.types.is_dictionary(data.type):
        data = data.dictionary_decode()
    if not (_is_text(data.type) or pa.types.is_integer(data.type)):
        raise WrongColumn(name, None, f"an entity id is text or an integer, not {data.type}")
    if data.null_count:
        row = int(np.flatnonzero(_null(data))[0])
        raise WrongColumn(name, first_row + row, "the entity id is null")
    data = data.cast(pa.large_string())
    _refuse_invalid_text(name, data)
    lengths = pc.binary_length(data).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero((lengths == 0) | (lengths > ENTITY_ID_BYTES_MAX))
    if len(wrong):
        problem = f"an entity id of {lengths[wrong[0]]} bytes; 1 to {ENTITY_ID_BYTES_MAX} are allowed"
        raise WrongColumn(name, first_row + int(wrong[0]), problem)
    ids: list[bytes] = data.cast(pa.large_binary()).to_pylist()
    return ids


def event_times_us(name: str, data: pa.Array, first_row: int) -> NDArray[np.int64]:
    """Event times in µs, from timestamps (without a zone: UTC), dates, integers (µs), or ISO 8601 text.

    Raises WrongColumn for a null or one before 1970 or after 2255, by row.
    """
    kind = data.type
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_integer(kind) or _is_text(kind)):
        raise WrongColumn(name, None, f"an event time is a timestamp, a date, µs as an integer, or text, not {kind}")
    times = _times(name, data)
    null = _null(times)
    values = _filled(times, 0)
    wrong = np.flatnonzero(null | (values < 0) | (values > EVENT_TIME_US_MAX))
    if len(wrong):
        row = int(wrong[0])
        problem = "the event time is null" if null[row] else f"{values[row]} µs is not between 1970 and 2255"
        raise WrongColumn(name, first_row + row, problem)
    return values


def _times(name: str, data: pa.Array) -> pa.Array:
    try:
        if not _is_text(data.type):
            return data.cast(pa.int64()) if pa.types.is_integer(data.type) else _as_utc(data).cast(pa.int64())
        if pc.all(pc.utf8_is_digit(data)).as_py():
            return data.cast(pa.int64())
        try:
            return data.cast(_TIME).cast(pa.int64())
        except pa.ArrowInvalid:  # Arrow reads text either all with a zone or all without one, which then is UTC
            return data.cast(pa.timestamp("us")).cast(pa.int64())
    except pa.ArrowException as error:
        raise WrongColumn(name, None, f"are no times: {error}") from error


def _as_utc(data: pa.Array) -> pa.Array:
    if pa.types.is_date(data.type):
        data = data.cast(pa.timestamp("s"))
    # Nanoseconds are cut off below the microsecond rather than refused: an age has no use for them.
    return data.cast(_TIME, safe=not (pa.types.is_timestamp(data.type) and data.type.unit == "ns"))


def _numbers(column: PlacedColumn, data: pa.Array, first_row: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    target = ARROW_TYPE[column.dtype]
    if column.dtype is Dtype.TIMESTAMP and _is_text(data.type):
        data = _times(column.name, data)
    _refuse_kind(column, data.type)
    if pa.types.is_floating(data.type) and column.dtype not in FLOATS:
        # An integer column with gaps reaches Parquet as floats with NaN, where pandas wrote it.
        data = pc.if_else(pc.is_nan(data), pa.scalar(None, data.type), data)
    null = _null(data)
    try:
        if column.dtype is Dtype.TIMESTAMP:
            data = data if pa.types.is_integer(data.type) else _as_utc(data)
            return _filled(data.cast(pa.int64()), 0), null
        if column.dtype in FLOATS and pa.types.is_integer(data.type):
            data = data.cast(pa.float64())  # refuses an integer beyond 2**53, which would come out as another
        if pa.types.is_floating(data.type) and column.dtype in FLOATS:
            with np.errstate(over="ignore"):
                return _filled(data, 0).astype(ARRAY_TYPE[NATIVE_DATATYPE[column.dtype]]), null
        return _filled(data.cast(target), 0), null
    except pa.ArrowInvalid as error:
        raise WrongColumn(column.name, _first_misfit(data, target, first_row), f"does not fit: {error}") from error


def _first_misfit(data: pa.Array, target: Any, first_row: int) -> int | None:
    # Arrow names the value and not its row. Halving finds the row in a few casts; it is only for the error's text.
    low, high = 0, len(data)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            data.slice(low, middle - low).cast(target)
            low = middle
        except pa.ArrowInvalid:
            high = middle
    return first_row + low


def _list_values(column: PlacedColumn, data: pa.Array, first_row: int) -> ColumnValues:
    kind = data.type
    if not (pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        raise WrongColumn(column.name, None, f"expected lists of {column.length} {column.dtype}, not {kind}")
    null = _null(data)
    lengths = pc.fill_null(pc.list_value_length(data), column.length).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(lengths != column.length)
    if len(wrong):
        problem = f"a list of {lengths[wrong[0]]} values where {column.length} were declared"
        raise WrongColumn(column.name, first_row + int(wrong[0]), problem)
    present = data.drop_null()
    elements = present.flatten()
    if elements.null_count:
        at = int(np.flatnonzero(_null(elements))[0]) // (column.length or 1)
        row = int(np.flatnonzero(~null)[at])
        raise WrongColumn(column.name, first_row + row, "a list may be null, its elements may not")
    numbers, _no_nulls = _numbers(column, elements, first_row)
    values = np.zeros((len(data), column.length or 1), numbers.dtype)
    values[~null] = numbers.reshape(-1, column.length or 1)
    if column.dtype in FLOATS:
        not_finite = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(not_finite):
            problem = f"an element is not a finite {column.dtype}"
            raise WrongColumn(column.name, first_row + int(not_finite[0]), problem)
    return ColumnValues(values, null)


def _string_values(column: PlacedColumn, data: pa.Array, first_row: int) -> ColumnValues:
    if not _is_text(data.type):
        raise WrongColumn(column.name, None, f"expected string, not {data.type}")
    text = data.cast(pa.large_string())
    _refuse_invalid_text(column.name, text)
    lengths = pc.fill_null(pc.binary_length(text), 0).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(lengths > STRING_BYTES_MAX)
    if len(wrong):
        problem = f"a string of {lengths[wrong[0]]} bytes; at most {STRING_BYTES_MAX} are stored"
        raise WrongColumn(column.name, first_row + int(wrong[0]), problem)
    _validity, offsets, values = text.buffers()
    own = np.frombuffer(offsets, np.int64)[text.offset : text.offset + len(text) + 1]
    content = np.frombuffer(values, np.uint8) if values is not None else np.zeros(0, np.uint8)
    return ColumnValues(content, _null(text), own)


def _refuse_kind(column: PlacedColumn, kind: Any) -> None:
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    fits = {
        Dtype.BOOL: pa.types.is_boolean(kind),
        Dtype.TIMESTAMP: pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_integer(kind),
    }.get(column.dtype, number)
    if not (fits or pa.types.is_null(kind)):
        raise WrongColumn(column.name, None, f"expected {column.dtype}, not {kind}")


def _refuse_infinite(column: PlacedColumn, values: NDArray[Any], null: NDArray[np.bool_], first_row: int) -> None:
    wrong = np.flatnonzero(~np.isfinite(values) & ~null)
    if len(wrong):
        raise WrongColumn(column.name, first_row + int(wrong[0]), f"not a finite {column.dtype}, or beyond its range")


def _refuse_invalid_text(name: str, text: pa.Array) -> None:
    try:
        text.validate(full=True)
    except pa.ArrowInvalid as error:
        raise WrongColumn(name, None, f"is not UTF-8: {error}") from error


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _null(data: pa.Array) -> NDArray[np.bool_]:
    null: NDArray[np.bool_] = data.is_null().to_numpy(zero_copy_only=False)
    return null.copy()  # Arrow's is read-only


def _filled(data: pa.Array, value: int) -> NDArray[Any]:
    filled = pc.fill_null(data, pa.scalar(value).cast(data.type)) if data.null_count else data
    values: NDArray[Any] = filled.to_numpy(zero_copy_only=False)
    return values
