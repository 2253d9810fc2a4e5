"""The soak itself: one stack, a steady load for minutes, and a look at every process every few seconds."""

import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec
import psutil
import pyarrow.parquet as pq

from loadtests.bench_data import BenchData
from loadtests.bench_models import add_rank_model, make_bench_data
from loadtests.cell import CellInterval, CellResult
from loadtests.gateway_counters import GatewayCounters, read_counters
from loadtests.generator_process import GeneratorProcess
from loadtests.latency_histogram import LatencyHistogram
from loadtests.loads import OPEN_LOOP_CONNECTIONS, SIXTEEN, SIXTY_FOUR, Load
from loadtests.measure import cell_spec, measure
from loadtests.redis_server import RedisServer
from loadtests.soak_result import GENERATOR, LogCount, SoakMinute, SoakSample
from loadtests.stack_process import StackProcess, usage_of
from loadtests.stacks import PRODUCT, RunningStacks, Stack, make_stacks

SAMPLE_S = 5.0
SAMPLES_MIN = 8
"""A short soak is sampled more often, to have about as many."""

CAPACITY_CELLS, CAPACITY_S = 3, 2.0
"""Capacity is the median of a few short cells."""

LOG_ROW_BYTES = 400
"""Room that a row of the log may need: about 130 in Parquet, more in the stream that the newest rows are in."""

LOG_WRITTEN_TIMEOUT_S = 30.0
MINUTE_S = 60.0
_POLL_S = 0.1


class DiskTooSmall(RuntimeError):
    """The prediction log of the soak would not fit."""

    def __init__(self, directory: Path, needed_bytes: float, free_bytes: float) -> None:
        super().__init__(
            f"the prediction log may need {needed_bytes / 1e9:.1f} GB, and {directory} has {free_bytes / 1e9:.1f} GB "
            "free: make room, name another directory by TMPDIR, or give fewer --minutes"
        )
        self.directory, self.needed_bytes, self.free_bytes = directory, needed_bytes, free_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakRun:
    """What was measured."""

    capacity_per_s: float
    offered_per_s: float
    result: CellResult
    log: LogCount
    by_minute: list[SoakMinute]
    samples: list[SoakSample]


def run_soak(
    seconds: float, share: float, began: Callable[[float, float], None], sampled: Callable[[SoakSample], None]
) -> SoakRun:
    """Offer `share` of the capacity for `seconds`.

    began: told of capacity and offered rate. sampled: told every SAMPLE_S.
    Raises ProcessFailed, GeneratorFailed, RedisServerNotFound, CountersUnavailable and DiskTooSmall; no process and no
    file outlives it.
    """
    with tempfile.TemporaryDirectory(prefix="sekisho-soak-") as directory:
        work = Path(directory)
        data = make_bench_data(work / "data")
        add_rank_model(data)
        redis = RedisServer(work)
        try:
            redis.wait_until_ready()
            redis.load(data, work / "load.log")
            (stack,) = make_stacks([PRODUCT], data, redis.url, work)
            with RunningStacks([stack], work) as running:
                processes = [*running.processes(stack), redis.process]
                capacity_per_s, answered = _capacity(stack, processes, data)
                offered_per_s = capacity_per_s * share
                check_space(work, offered_per_s * seconds)
                began(capacity_per_s, offered_per_s)
                soak = _Soak(stack, processes, seconds, sampled)
                result = soak.run(offered_per_s, data)
                counters = _settled(stack.front.ready_port)
        finally:
            redis.process.stop()
        assert stack.log_directory is not None
        rows, size_bytes = count_log(stack.log_directory)
        log = LogCount(
            answers=answered + result.answers_total, gateway=counters, rows_in_files=rows, bytes_in_files=size_bytes
        )
    return SoakRun(
        capacity_per_s=capacity_per_s,
        offered_per_s=offered_per_s,
        result=result,
        log=log,
        by_minute=soak.by_minute(),
        samples=soak.samples,
    )


def check_space(directory: Path, rows: float) -> None:
    """Raise DiskTooSmall where a log of this many rows may not fit."""
    needed_bytes, free_bytes = rows * LOG_ROW_BYTES, shutil.disk_usage(directory).free
    if needed_bytes > free_bytes:
        raise DiskTooSmall(directory, needed_bytes, free_bytes)


def count_log(directory: Path) -> tuple[int, int]:
    """Rows and bytes of the finished files of a prediction log."""
    files = sorted((directory / "predictions").rglob("*.parquet"))
    return sum(pq.read_metadata(file).num_rows for file in files), sum(file.stat().st_size for file in files)


def _capacity(stack: Stack, processes: list[StackProcess], data: BenchData) -> tuple[float, int]:
    """Requests a second in closed loop, and how many answers it took to find out."""
    warm = measure(stack, SIXTEEN, 0, CAPACITY_S, processes, data)
    cells = [measure(stack, SIXTY_FOUR, number, CAPACITY_S, processes, data) for number in range(CAPACITY_CELLS)]
    return median(cell.result.rate_per_s for cell in cells), sum(each.result.answers_total for each in (warm, *cells))


def _settled(admin_port: int) -> GatewayCounters:
    """The counters once nothing waits for the log's writer any more, or after LOG_WRITTEN_TIMEOUT_S."""
    deadline_s = time.monotonic() + LOG_WRITTEN_TIMEOUT_S
    while (counters := read_counters(admin_port)).rows_pending and time.monotonic() < deadline_s:
        time.sleep(_POLL_S)
    return counters


class _Soak:
    """The load, and what is seen meanwhile."""

    def __init__(
        self, stack: Stack, processes: list[StackProcess], seconds: float, sampled: Callable[[SoakSample], None]
    ) -> None:
        self._stack, self._processes, self._seconds, self._sampled = stack, processes, seconds, sampled
        self._admin_port = stack.front.ready_port
        self._minutes: defaultdict[int, LatencyHistogram] = defaultdict(LatencyHistogram)
        self._minute_s: defaultdict[int, float] = defaultdict(float)
        self.samples: list[SoakSample] = []

    def run(self, offered_per_s: float, data: BenchData) -> CellResult:
        """Load until it is over. Raises ProcessFailed, GeneratorFailed and CountersUnavailable."""
        load = Load(name="soak", connections=OPEN_LOOP_CONNECTIONS, rate_per_s=offered_per_s)
        spec = cell_spec(self._stack, load, 1, self._seconds, data)
        spec = msgspec.structs.replace(spec, report_every_s=min(SAMPLE_S, self._seconds / SAMPLES_MIN))
        generator = GeneratorProcess(self._stack.name, load.name, spec)
        itself = psutil.Process(generator.pid)
        with closing(generator.told()) as telling:
            for told in telling:
                if isinstance(told, CellResult):
                    return told
                self._note(told, itself)
        raise AssertionError("the last that a generator tells is its result")

    def by_minute(self) -> list[SoakMinute]:
        """The answers of each minute."""
        return [
            SoakMinute(
                minute=minute + 1,
                answers=latencies.count,
                rate_per_s=latencies.count / max(self._minute_s[minute], 1e-9),
                p50_ms=latencies.percentile_ns(0.5) / 1e6,
                p99_ms=latencies.percentile_ns(0.99) / 1e6,
                p999_ms=latencies.percentile_ns(0.999) / 1e6,
                max_ms=latencies.max_ns / 1e6,
            )
            for minute, latencies in sorted(self._minutes.items())
        ]

    def _note(self, told: CellInterval, generator: psutil.Process) -> None:
        latencies = LatencyHistogram.from_buckets(told.buckets, told.max_ns)
        # What still comes in after the last request belongs to the last minute.
        minute = int(min(told.at_s - told.seconds / 2, self._seconds - 1e-9) // MINUTE_S)
        self._minutes[minute].add(latencies)
        self._minute_s[minute] += told.seconds
        if told.at_s >= self._seconds:
            return  # the load is over: connections are being closed, and the generator is about to end
        try:
            held = {each.name: each.usage() for each in self._processes} | {GENERATOR: usage_of([generator])}
        except psutil.NoSuchProcess:
            return  # whoever ended just now fails the soak at the next look
        sample = SoakSample(
            at_s=told.at_s,
            rate_per_s=latencies.count / told.seconds,
            p50_ms=latencies.percentile_ns(0.5) / 1e6,
            p99_ms=latencies.percentile_ns(0.99) / 1e6,
            p999_ms=latencies.percentile_ns(0.999) / 1e6,
            errors=told.errors,
            waiting=told.waiting,
            processes=held,
            gateway=read_counters(self._admin_port),
        )
        self.samples.append(sample)
        self._sampled(sample)
