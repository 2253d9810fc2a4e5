"""The load generator: one cell from a JSON specification on stdin to a JSON result on stdout.

It runs in a process of its own, so that neither the benchmark's display nor its bookkeeping is in the way, and it
checks every answer.
"""

import asyncio
import gc
import sys
import time
from collections import Counter, deque

import msgspec
import numpy as np
import uvloop

from loadtests.answer_check import AnswerCheck, StatusCheck, share_problem
from loadtests.arrivals import Pacer, PreciseTimer, poisson_arrivals_ns
from loadtests.bench_data import features
from loadtests.cell import CellResult, CellSpec
from loadtests.http_connection import Connection, Response
from loadtests.infer_load import InferCheck, infer_request
from loadtests.percentiles import percentile

HOST = "127.0.0.1"
DRAIN_S = 5.0
"""How long the end of a run waits for answers that are still to come."""

TREATMENT = "2"
ERROR_KINDS_MAX = 20
"""Distinct error messages that are kept; the rest are counted together."""

_OTHER_ERRORS = "other errors"


def request_users(users: int, instances: int, seed: int) -> list[range]:
    """The users of each request: all users in an order that is no order, or runs of `instances` neighbours."""
    if instances == 1:
        order = np.random.default_rng(seed).permutation(users).tolist()
        return [range(user, user + 1) for user in order]
    return [range(first, first + instances) for first in range(0, users - instances + 1, instances)]


def request_bytes(path: str, users: range) -> bytes:
    """One whole HTTP request for these users; more than one need a unit, which is the first."""
    instances = ",".join(f'{{"entities":{{"user":"u{user}"}}}}' for user in users)
    unit = f',"unit":"u{users[0]}"' if len(users) > 1 else ""
    body = f'{{"instances":[{instances}]{unit}}}'.encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class LoadGenerator:
    """Runs one cell."""

    def __init__(self, spec: CellSpec) -> None:
        self._spec = spec
        users = request_users(spec.users, spec.instances, spec.seed)
        self._requests, self._check = _work(spec, users)
        self._idle: deque[Connection] = deque()
        self._queue: deque[int] = deque()  # intended send times, ns; bounded by the schedule's length
        self._under_way: set[Connection] = set()
        self._next_request = 0
        self._latencies_ns: list[int] = []
        self._errors: Counter[str] = Counter()
        self._answers_total = 0
        self._last_answer_ns = 0
        self._measure_from_ns = self._stop_ns = 0
        self._stopped = self._cpu_from_s = self._cpu_until_s = 0.0
        self._drained = asyncio.Event()

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
            lags_ns = [0]
            await self._closed_loop(connections)
        else:
            lags_ns = await self._open_loop(connections, spec.rate_per_s, start_ns)
        await self._drain()
        for connection in connections:
            connection.close()
        return self._result(lags_ns)

    async def _closed_loop(self, connections: list[Connection]) -> None:
        for connection in connections:
            self._send(connection, time.monotonic_ns())
        await asyncio.sleep((self._stop_ns - time.monotonic_ns()) / 1e9)
        self._mark_stop()

    async def _open_loop(self, connections: list[Connection], rate_per_s: float, start_ns: int) -> list[int]:
        self._idle.extend(connections)
        spec = self._spec
        offsets_ns = poisson_arrivals_ns(rate_per_s, spec.warmup_s + spec.seconds, spec.seed)
        pacer = Pacer([start_ns + offset for offset in offsets_ns], self._arrived, time.monotonic_ns)
        timer, finished = PreciseTimer(), asyncio.Event()

        def wake() -> None:
            timer.acknowledge()
            pacer.send_due()
            if pacer.next_ns is None:
                finished.set()
            else:
                timer.wake_at(pacer.next_ns)

        loop = asyncio.get_running_loop()
        loop.add_reader(timer.fd, wake)
        timer.wake_at(start_ns + offsets_ns[0])
        await finished.wait()
        loop.remove_reader(timer.fd)
        timer.close()
        self._mark_stop()
        return pacer.lags_ns

    def _mark_start(self) -> None:
        self._cpu_from_s = time.process_time()

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
        else:
            self._queue.append(intended_ns)

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
            self._latencies_ns.append(now_ns - connection.started_ns)
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
        if self._stopped and not self._under_way:
            self._drained.set()

    def _count_error(self, problem: str) -> None:
        full = len(self._errors) >= ERROR_KINDS_MAX and problem not in self._errors
        self._errors[_OTHER_ERRORS if full else problem] += 1

    def _result(self, lags_ns: list[int]) -> CellResult:
        spec, now_ns = self._spec, time.monotonic_ns()
        waiting = [*self._queue, *(connection.started_ns for connection in self._under_way)]
        latencies_ns = self._latencies_ns
        if spec.rate_per_s is not None:
            latencies_ns = latencies_ns + [now_ns - due for due in waiting if due >= self._measure_from_ns]
        # Who needs longer than the schedule does not keep up with it, and the rate says so.
        took_s = max(spec.seconds, (self._last_answer_ns - self._measure_from_ns) / 1e9)
        ascending = sorted(latencies_ns) or [0]
        units_by_version = self._check.units_by_version()
        problem = share_problem(units_by_version, TREATMENT, spec.treatment_share) if units_by_version else None
        if problem is not None and spec.instances == 1:
            self._count_error(problem)
        if self._answers_total == 0:
            self._count_error("no answer at all")
        return CellResult(
            answers=len(self._latencies_ns),
            seconds=took_s,
            rate_per_s=len(self._latencies_ns) / took_s,
            p50_ms=percentile(ascending, 0.5) / 1e6,
            p99_ms=percentile(ascending, 0.99) / 1e6,
            p999_ms=percentile(ascending, 0.999) / 1e6,
            max_ms=ascending[-1] / 1e6,
            answers_total=self._answers_total,
            unanswered=len(waiting),
            errors=dict(self._errors),
            units_by_version=units_by_version,
            generator_cpu_s=time.process_time(),
            generator_cpu_share=(self._cpu_until_s - self._cpu_from_s) / spec.seconds,
            generator_lag_p99_ms=percentile(sorted(lags_ns), 0.99) / 1e6,
        )


def _work(spec: CellSpec, users: list[range]) -> tuple[list[bytes], AnswerCheck | StatusCheck | InferCheck]:
    """Make every request, and what checks the answers."""
    values = None if spec.expected_file is None else np.load(spec.expected_file).tolist()
    if spec.kind != "predict":
        if values is None or spec.instances != 1:
            raise ValueError(f"{spec.kind} requests are of one row, and each answer is checked")
        order = [each[0] for each in users]
        rows = features(spec.users)
        requests = [infer_request(spec.path, rows[user], binary=spec.kind == "infer-binary") for user in order]
        return requests, InferCheck([values[0][user] for user in order], binary=spec.kind == "infer-binary")
    requests = [request_bytes(spec.path, each) for each in users]
    if values is None:
        return requests, StatusCheck()
    return requests, AnswerCheck({str(i + 1): row for i, row in enumerate(values)}, users)


async def _run(spec: CellSpec) -> CellResult:
    generator = LoadGenerator(spec)
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
    sys.stdout.buffer.write(msgspec.json.encode(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
