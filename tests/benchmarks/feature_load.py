"""Prints how many rows a second a bulk load writes: `python tests/benchmarks/feature_load.py`.

200,000 rows of 10 float32 into a private Redis, from one Arrow table: into an empty view, and again over its own rows
(where the late-write guard compares every one). Redis and the loader share the machine's cores.
"""

import asyncio
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from feature_store import EmbeddedRedis, RegisteredView, open_redis
from feature_store.dtypes import Dtype
from feature_store.row_layout import Column, place_columns
from feature_store.row_loader import load_rows

ROWS = 200_000
FEATURES = 10
NOW_US = 1_800_000_000_000_000
ROUNDS = 3


def view(*extra: Column) -> RegisteredView:
    layout = place_columns("bench", 1, [*(Column(f"f{i}", Dtype.FLOAT32) for i in range(FEATURES)), *extra])
    return RegisteredView(
        name="bench", entity="user", max_age_us=10**12, current_schema_id=1, schemas={1: layout}, defaults={}
    )


def table() -> pa.Table:
    random = np.random.default_rng(1)
    columns = {f"f{i}": random.normal(size=ROWS) for i in range(FEATURES)}
    times = np.arange(ROWS, dtype=np.int64) + NOW_US
    return pa.table({"user": [f"u{i}" for i in range(ROWS)], "event_time": times, **columns})


async def measure(url: str) -> None:
    redis = open_redis(url)
    floats = table()
    with_text = floats.append_column("text", pa.array([f"text of {i}" for i in range(ROWS)]))
    for _round in range(ROUNDS):
        for name, target, rows in (
            ("10 float32", view(), floats),
            ("10 float32 and a string", view(Column("text", Dtype.STRING)), with_text),
        ):
            await redis.flushall()
            for state in ("empty view", "over its own rows"):
                begin = time.perf_counter()
                report = await load_rows(redis, target, rows, now_us=lambda: NOW_US)
                assert report.written == ROWS
                print(f"{name:<24} {state:<18} {ROWS / (time.perf_counter() - begin):>9,.0f} rows/s")
    await redis.aclose()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory, EmbeddedRedis(Path(directory)) as server:
        asyncio.run(measure(server.url))
