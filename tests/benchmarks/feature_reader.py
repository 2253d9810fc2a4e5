"""Prints the p50 and p99 of reading rows: `python tests/benchmarks/feature_reader.py`.

One caller, one read after another, from a private Redis on loopback TCP, on uvloop. OnlineReader and redis-py's asyncio
client take turns in one run, because the machine's speed drifts, and so does OnlineReader on a Redis Cluster of three
nodes; the last lines are many callers at a time.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import uvloop

from feature_store import EmbeddedRedis, OnlineReader, open_connection, open_redis, row_key
from tests.integration.redis_servers import cluster

READS_PER_ROUND = 1_000
ROUNDS = 8
KEYS = [row_key("bench", f"u{i}") for i in range(1_000)]
CALLERS = 64


async def timed(read: Callable[[], Awaitable[object]]) -> list[float]:
    times = []
    for _read in range(READS_PER_ROUND):
        begin = time.perf_counter()
        await read()
        times.append((time.perf_counter() - begin) * 1e6)
    return times


async def measure(url: str, cluster_url: str) -> None:
    redis = open_redis(url)
    await redis.mset(dict.fromkeys(KEYS, b"\xf5" + b"x" * 231))
    reader = OnlineReader(open_connection(url))
    await reader.start()
    async with open_redis(cluster_url) as many:
        pipeline = many.pipeline(transaction=False)
        for key in KEYS:
            pipeline.execute_command("SET", key, b"\xf5" + b"x" * 231)
        await pipeline.execute()
    cluster_reader = OnlineReader(open_connection(cluster_url))
    await cluster_reader.start()
    contestants: dict[str, Callable[[], Awaitable[object]]] = {
        "OnlineReader, 1 key": lambda: reader.fetch(KEYS[:1]),
        "redis-py GET": lambda: redis.get(KEYS[0]),
        "OnlineReader, 32 keys": lambda: reader.fetch(KEYS[:32]),
        "redis-py MGET of 32": lambda: redis.mget(KEYS[:32]),
        "cluster, 1 key": lambda: cluster_reader.fetch(KEYS[:1]),
        "cluster, 32 keys": lambda: cluster_reader.fetch(KEYS[:32]),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _round in range(ROUNDS):
        for name, read in contestants.items():
            times[name] += await timed(read)
    for name, measured in times.items():
        cuts = statistics.quantiles(measured, n=100)
        print(f"{name:<24} p50 {cuts[49]:6.1f} µs   p99 {cuts[98]:6.1f} µs")
    readers: dict[str, Callable[[bytes], Awaitable[object]]] = {
        "OnlineReader": lambda key: reader.fetch([key]),
        "redis-py": redis.get,
    }
    for name, read_key in readers.items():
        begin = time.perf_counter()
        # Each caller has a key of its own, so that what is measured is coalescing and not the sharing of one read.
        await asyncio.gather(*(timed(partial(read_key, key)) for key in KEYS[:CALLERS]))
        rate = CALLERS * READS_PER_ROUND / (time.perf_counter() - begin)
        print(f"{CALLERS} callers, {name:<12} {rate:>10,.0f} reads/s")
    await reader.close()
    await cluster_reader.close()
    await redis.aclose()


if __name__ == "__main__":
    with (
        tempfile.TemporaryDirectory() as directory,
        EmbeddedRedis(Path(directory), port=0) as server,
        cluster(Path(directory)) as nodes,
    ):
        uvloop.run(measure(server.url, f"redis+cluster://127.0.0.1:{nodes[0].port}"))
