"""Prints what it costs to project one row, in µs: `python tests/benchmarks/feature_projection.py`.

Each figure is the best of several rounds, which leaves out what else the machine was doing.
"""

import timeit

from feature_store import Projection, RegisteredView, Wanted
from feature_store.dtypes import Dtype
from feature_store.row_layout import Column, place_columns

FEATURES = 50
NOW_US = 1_800_000_000_000_000
CALLS_PER_ROUND = 20_000
ROUNDS = 7


def view(dtype: Dtype) -> RegisteredView:
    layout = place_columns("bench", 1, [Column(f"f{i}", dtype) for i in range(FEATURES)])
    defaults = {f"f{i}": 0 for i in range(FEATURES)}
    return RegisteredView(
        name="bench", entity="user", max_age_us=10**12, current_schema_id=1, schemas={1: layout}, defaults=defaults
    )


def row(of: RegisteredView, *nulls: str) -> bytes:
    values = {f"f{i}": i for i in range(FEATURES) if f"f{i}" not in nulls}
    return of.current.encode(values, event_time_us=NOW_US, write_time_us=NOW_US)


def wanted(datatype: str, order: range) -> list[Wanted]:
    return [Wanted(f"f{i}", datatype) for i in order]


def measured(name: str, projection: Projection, raw: bytes | None) -> None:
    calls = timeit.repeat(lambda: projection.project(raw, NOW_US), number=CALLS_PER_ROUND, repeat=ROUNDS)
    print(f"{name:<52} {min(calls) / CALLS_PER_ROUND * 1e6:6.2f} µs")


def main() -> None:
    floats, doubles, integers = view(Dtype.FLOAT32), view(Dtype.FLOAT64), view(Dtype.INT64)
    whole = Projection(floats, [wanted("FP32", range(FEATURES))])
    measured("50 float32 → FP32, one run (the fast path)", whole, row(floats))
    halves = Projection(floats, [wanted("FP32", range(25)), wanted("FP32", range(25, 50))])
    measured("50 float32 → FP32, two runs", halves, row(floats))
    measured("50 float32 → FP32, one of them null", whole, row(floats, "f7"))
    reverse = Projection(floats, [wanted("FP32", range(FEATURES - 1, -1, -1))])
    measured("50 float32 → FP32, in another order", reverse, row(floats))
    measured("50 float64 → FP32", Projection(doubles, [wanted("FP32", range(FEATURES))]), row(doubles))
    measured("50 int64 → FP32", Projection(integers, [wanted("FP32", range(FEATURES))]), row(integers))
    measured("no row", whole, None)
    measured("a corrupt row", whole, b"\0" * 300)
    given = {"f7": 1.5, "f8": 2}
    calls = timeit.repeat(lambda: whole.project_with(row7, NOW_US, given), number=CALLS_PER_ROUND, repeat=ROUNDS)
    print(f"{'50 float32 → FP32, two of them given':<52} {min(calls) / CALLS_PER_ROUND * 1e6:6.2f} µs")


row7 = row(view(Dtype.FLOAT32))

if __name__ == "__main__":
    main()
