"""The load generator: one cell from a JSON specification on stdin to lines of JSON on stdout, the last its result.

It runs in a process of its own, so that neither the benchmark's display nor its bookkeeping is in the way, and it
checks every answer.
"""

import asyncio
import contextlib
import gc
import sys
import time
from collections import Counter, deque
from collections.abc import Callable

import msgspec
import uvloop

from loadtests.answer_check import share_problem
from loadtests.arrivals import Pacer, PreciseTimer, poisson_arrivals_ns
from loadtests.cell import CellInterval, CellResult, CellSpec, GeneratorLine
from loadtests.cell_requests import cell_requests
from loadtests.http_connection import Connection, Response
from loadtests.latency_histogram import LatencyHistogram
from loadtests.request_head import HOST

DRAIN_S = 5.0
"""How long the end of a run waits for answers that are still to come."""

TREATMENT = "2"
ERROR_KINDS_MAX = 20
"""Distinct error messages that are kept; the rest are counted together."""

WAITING_MAX = 1_000_000
"""Requests that may be due while every connection is busy; those beyond are errors."""

_OTHER_ERRORS = "other errors"


class LoadGenerator:
    """Runs one cell. `tell` gets an interval each `report_every_s`, where the specification asks for them."""

    def __init__(self, spec: CellSpec, tell: Callable[[CellInterval], None] | None = None) -> None:
        self._spec, self._tell = spec, tell
        self._requests, self._check = cell_requests(spec)
        self._idle: deque[Connection] = deque()
        self._queue: deque[int] = deque()  # intended send times, ns; at most WAITING_MAX
        self._under_way: set[Connection] = set()
        self._next_request = 0
        self._latencies, self._interval, self._lags = LatencyHistogram(), LatencyHistogram(), LatencyHistogram()
        self._errors: Counter[str] = Counter()
        self._answers_total = 0
        self._last_answer_ns = self._interval_from_ns = 0
        self._measure_from_ns = self._stop_ns = 0
        self._stopped = False
        self._cpu_from_s = self._cpu_until_s = 0.0
        self._alive = spec.connections
        self._over, self._drained = asyncio.Event(), asyncio.Event()

    async def run(self) -> CellResult:
        """Connect, load, drain, and sum up. Raises OSError where the server does not accept connections."""
        loop, spec = asyncio.get_running_loop(), self._spec
        made = [
            await loop.create_connection(lambda: Connection(self._answered, self._failed), HOST, spec.port)
            for _ in range(spec.connections)
        ]
        connections = [connection for _, connection in made]
        start_ns = time.monotonic_ns()
        self._measure_from_ns = start_ns + int(spec.warmup_s * 1e9)
        self._stop_ns = self._measure_from_ns + int(spec.seconds * 1e9)
        loop.call_later(spec.warmup_s, self._mark_start)
        if spec.rate_per_s is None:
            await self._closed_loop(connections)
        else:
            await self._open_loop(connections, spec.rate_per_s, start_ns)
        await self._drain()
        self._end_interval()
        for connection in connections:
            connection.close()
        return self._result()

    async def _closed_loop(self, connections: list[Connection]) -> None:
        for connection in connections:
            self._send(connection, time.monotonic_ns())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), (self._stop_ns - time.monotonic_ns()) / 1e9)
        self._mark_stop()

    async def _open_loop(self, connections: list[Connection], rate_per_s: float, start_ns: int) -> None:
        self._idle.extend(connections)
        spec = self._spec
        pieces = poisson_arrivals_ns(rate_per_s, spec.warmup_s + spec.seconds, spec.seed)
        pacer = Pacer(pieces, start_ns, self._arrived, self._lags.record, time.monotonic_ns)
        timer = PreciseTimer()

        def wake() -> None:
            timer.acknowledge()
            pacer.send_due()
            if pacer.next_ns is None:
                self._over.set()
            else:
                timer.wake_at(pacer.next_ns)

        loop = asyncio.get_running_loop()
        loop.add_reader(timer.fd, wake)
        timer.wake_at(start_ns)
        await self._over.wait()
        loop.remove_reader(timer.fd)
        timer.close()
        self._mark_stop()

    def _mark_start(self) -> None:
        self._cpu_from_s = time.process_time()
        self._interval_from_ns = time.monotonic_ns()
        self._next_interval()

    def _next_interval(self) -> None:
        if self._spec.report_every_s is not None:
            asyncio.get_running_loop().call_later(self._spec.report_every_s, self._interval_over)

    def _interval_over(self) -> None:
        if not self._stopped:
            self._next_interval()
            self._end_interval()

    def _end_interval(self) -> None:
        now_ns, interval = time.monotonic_ns(), self._interval
        self._interval = LatencyHistogram()
        self._latencies.add(interval)
        if self._tell is not None and self._spec.report_every_s is not None:
            told = CellInterval(
                at_s=(now_ns - self._measure_from_ns) / 1e9,
                seconds=(now_ns - self._interval_from_ns) / 1e9,
                buckets=interval.buckets(),
                max_ns=interval.max_ns,
                errors=self._errors.total(),
                waiting=len(self._queue),
            )
            self._tell(told)
        self._interval_from_ns = now_ns

    def _mark_stop(self) -> None:
        self._cpu_until_s = time.process_time()
        self._stopped = True

    async def _drain(self) -> None:
        if self._under_way or self._queue:
            try:
                await asyncio.wait_for(self._drained.wait(), DRAIN_S)
            except TimeoutError:
                return

    def _arrived(self, intended_ns: int) -> None:
        # In turn rather than last in, first out: no connection idles long enough for the server to close it.
        if self._idle:
            self._send(self._idle.popleft(), intended_ns)
        elif len(self._queue) < WAITING_MAX:
            self._queue.append(intended_ns)
        else:
            self._count_error(f"not sent, for {WAITING_MAX:,} waited already")

    def _send(self, connection: Connection, started_ns: int) -> None:
        request = self._next_request
        self._next_request = request + 1 if request + 1 < len(self._requests) else 0
        self._under_way.add(connection)
        connection.send(request, self._requests[request], started_ns)

    def _answered(self, connection: Connection, response: Response) -> None:
        now_ns = time.monotonic_ns()
        self._answers_total += 1
        self._under_way.discard(connection)
        problem = self._check.problem(connection.request, response)
        if problem is not None:
            self._count_error(problem)
        elif self._counts(connection.started_ns, now_ns):
            self._interval.record(now_ns - connection.started_ns)
            self._last_answer_ns = now_ns
        self._go_on(connection, now_ns)

    def _counts(self, started_ns: int, now_ns: int) -> bool:
        # A rate counts answers of the window, whenever they were asked for; open-loop latency counts every request
        # that was due in the window, however late its answer: leaving out the late ones is coordinated omission.
        if self._spec.rate_per_s is None:
            return self._measure_from_ns <= now_ns < self._stop_ns
        return started_ns >= self._measure_from_ns

    def _go_on(self, connection: Connection, now_ns: int) -> None:
        if self._spec.rate_per_s is not None:
            if self._queue:
                self._send(connection, self._queue.popleft())
            else:
                self._idle.append(connection)
        elif not self._stopped:
            self._send(connection, now_ns)
        if self._stopped and not self._under_way:
            self._drained.set()

    def _failed(self, connection: Connection, why: str) -> None:
        self._under_way.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._count_error(why)
        # Without a connection there is nothing more to learn, and nothing to send with.
        self._alive -= 1
        if self._alive == 0:
            self._over.set()
        if self._stopped and not self._under_way:
            self._drained.set()

    def _count_error(self, problem: str) -> None:
        full = len(self._errors) >= ERROR_KINDS_MAX and problem not in self._errors
        self._errors[_OTHER_ERRORS if full else problem] += 1

    def _result(self) -> CellResult:
        spec, now_ns, latencies = self._spec, time.monotonic_ns(), self._latencies
        answers = latencies.count
        waiting = [*self._queue, *(connection.started_ns for connection in self._under_way)]
        if spec.rate_per_s is not None:
            for due_ns in waiting:
                if due_ns >= self._measure_from_ns:
                    latencies.record(now_ns - due_ns)
        # Who needs longer than the schedule does not keep up with it, and the rate says so.
        took_s = max(spec.seconds, (self._last_answer_ns - self._measure_from_ns) / 1e9)
        units_by_version = self._check.units_by_version()
        if spec.kind == "predict" and spec.instances == 1 and units_by_version:
            problem = share_problem(units_by_version, TREATMENT, spec.treatment_share)
            if problem is not None:
                self._count_error(problem)
        if self._answers_total == 0:
            self._count_error("no answer at all")
        return CellResult(
            answers=answers,
            seconds=took_s,
            rate_per_s=answers / took_s,
            p50_ms=latencies.percentile_ns(0.5) / 1e6,
            p99_ms=latencies.percentile_ns(0.99) / 1e6,
            p999_ms=latencies.percentile_ns(0.999) / 1e6,
            max_ms=latencies.max_ns / 1e6,
            answers_total=self._answers_total,
            unanswered=len(waiting),
            errors=dict(self._errors),
            units_by_version=units_by_version,
            generator_cpu_s=time.process_time(),
            generator_cpu_share=(self._cpu_until_s - self._cpu_from_s) / spec.seconds,
            generator_lag_p99_ms=self._lags.percentile_ns(0.99) / 1e6,
        )


def _write(line: GeneratorLine) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


async def _run(spec: CellSpec) -> CellResult:
    generator = LoadGenerator(spec, lambda interval: _write(GeneratorLine(interval=interval)))
    # A collection in the middle of a run would look like the server's latency; the process ends before it matters.
    gc.freeze()
    gc.disable()
    return await generator.run()


def main() -> int:
    """Run the cell that stdin specifies. Returns 0, or 1 where the server could not be reached."""
    spec = msgspec.json.decode(sys.stdin.buffer.read(), type=CellSpec)
    try:
        result = uvloop.run(_run(spec))
    except OSError as error:
        print(f"load generator: {HOST}:{spec.port}: {error}", file=sys.stderr)
        return 1
    _write(GeneratorLine(result=result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
