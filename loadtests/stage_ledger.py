"""CPU time of a request by stage: which stage a stack of frames belongs to, and a ledger of them that adds up."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

STEPS_PER_US = 10
"""Ledgers count in tenths of a µs, the smallest that is shown: so what is shown adds up as well."""

_Key = TypeVar("_Key", bound=Hashable)

READ = "read the request"
DECODE = "decode, check"
ADMIT = "admission, deadline"
ASSIGN = "assignment"
FEATURES = "read features"
ASSEMBLE = "project, join rows"
DISPATCH = "send to the worker"
ANSWERED = "the worker's answer"
METRICS = "metrics"
LOG = "offer to the log"
WRITE = "write the answer"
LOOP = "event loop"
LOG_THREAD = "log writer's thread"
BATCH = "queue, batch"
RUN = "run the model"
OTHER = "other"
KERNEL = "kernel: sockets, wake-ups"


class Place(NamedTuple):
    """Code that belongs to a stage: a file or a folder, and there all functions, or those whose name begins so."""

    stage: str
    path: str
    functions: tuple[str, ...] = ("",)
    calls_kernel: bool = False
    """Whether most of its own time is the kernel's: it writes to a socket or a file, or waits for one."""


class FrameStack(NamedTuple):
    """A stack that a profiler saw, outermost frame first (`function (file:line)`), and how many times."""

    thread_id: int
    thread: str
    frames: tuple[str, ...]
    samples: int


class ThreadCpu(NamedTuple):
    """CPU time of a thread in ticks of the operating system's clock: its own, and the kernel's for it."""

    name: str
    user_ticks: int
    system_ticks: int


class Tally(NamedTuple):
    """Samples of a thread by stage, and those among them that were taken where the kernel is called."""

    stages: Counter[str]
    at_kernel: Counter[str]


class Entry(NamedTuple):
    """A line of a ledger. steps: of 1 / STEPS_PER_US µs a request."""

    thread: str
    stage: str
    steps: int


# The innermost frame that is here names the stage, and the first line that fits it: what is not here (contracts,
# telemetry's clocks, the standard library) belongs to its caller. In the order of the data path, but for exceptions.
GATEWAY_PLACES = (
    Place(WRITE, "http_server/connection.py", ("Connection._respond",), calls_kernel=True),
    Place(WRITE, "http_server/exchange.py", ("Exchange.respond",)),
    Place(READ, "http_server/"),
    Place(WRITE, "gateway/edge/predict_route.py", ("PredictRoute._answer",)),
    Place(WRITE, "gateway/edge/call_headers.py", ("timing",)),
    Place(WRITE, "gateway/identifiers.py"),
    Place(DECODE, "gateway/edge/"),
    Place(DECODE, "gateway/predict_request.py"),
    Place(DECODE, "gateway/request_names.py"),
    Place(ASSIGN, "gateway/variant_draw.py"),
    Place(LOG, "gateway/predict.py", ("Predictor._answered",)),
    Place(WRITE, "gateway/predict.py", ("values_for_clients", "_finite")),
    Place(ADMIT, "gateway/predict.py"),
    Place(ADMIT, "gateway/admission.py"),
    Place(ADMIT, "gateway/deadline_watch.py"),
    Place(ASSIGN, "experiments/"),
    Place(FEATURES, "feature_store/redis_protocol.py", ("RedisProtocol.send",), calls_kernel=True),
    Place(FEATURES, "feature_store/redis_protocol.py"),
    Place(FEATURES, "feature_store/redis_connection.py"),
    Place(FEATURES, "feature_store/online_reader.py"),
    Place(ASSEMBLE, "feature_store/projection"),
    Place(ASSEMBLE, "gateway/feature_rows.py"),
    Place(ASSEMBLE, "gateway/row_sources.py"),
    Place(DISPATCH, "gateway/dispatch/worker_connection.py", ("WorkerConnection.exchange",), calls_kernel=True),
    Place(ANSWERED, "gateway/dispatch/worker_connection.py"),
    Place(ANSWERED, "gateway/dispatch/output_decoder.py"),
    Place(ANSWERED, "gateway/dispatch/batch_dispatcher.py", ("BatchDispatcher._answered", "BatchDispatcher._deliver")),
    Place(DISPATCH, "gateway/dispatch/"),
    Place(DISPATCH, "gateway/scoring_ladder.py"),
    Place(METRICS, "gateway/metrics.py"),
    Place(METRICS, "telemetry/metrics.py"),
    Place(LOG, "gateway/prediction_log/log_writer.py", ("LogWriter.offer", "LogWriter.has_room", "entry_bytes")),
    Place(LOG_THREAD, "gateway/prediction_log/"),
    Place(OTHER, "gateway_request.py", ("answered", "measure", "redis_reader", "worker_pool", "NoLog")),
    Place(LOOP, "uvloop/", calls_kernel=True),
    Place(LOOP, "asyncio/", calls_kernel=True),
)

WORKER_PLACES = (
    Place(WRITE, "http_server/connection.py", ("Connection._respond",), calls_kernel=True),
    Place(WRITE, "http_server/exchange.py", ("Exchange.respond",)),
    Place(READ, "http_server/"),
    Place(WRITE, "model_workers/edge.py", ("WorkerApp._answer_rows", "_binary_outputs")),
    Place(WRITE, "model_workers/wire_memory.py", ("WireMemory.encode",)),
    Place(WRITE, "model_workers/served_models.py", ("QueuedRequest.response",)),
    Place(DECODE, "model_workers/edge.py"),
    Place(DECODE, "model_workers/wire_memory.py"),
    Place(DECODE, "model_workers/request_rows.py"),
    Place(BATCH, "model_workers/served_models.py"),
    Place(BATCH, "model_workers/batcher.py"),
    Place(BATCH, "model_workers/call_queue.py"),
    Place(BATCH, "model_workers/executions.py"),
    Place(RUN, "model_workers/model_version.py"),
    Place(RUN, "model_workers/runtimes/"),
    Place(RUN, "onnxruntime/"),
    Place(RUN, "lightgbm/"),
    Place(METRICS, "model_workers/metrics.py"),
    Place(METRICS, "model_workers/version_statistics.py"),
    Place(METRICS, "telemetry/metrics.py"),
    Place(LOOP, "uvloop/", calls_kernel=True),
    Place(LOOP, "asyncio/", calls_kernel=True),
)


class ProfileLineWrong(ValueError):
    """A line is not what py-spy's raw format has."""

    def __init__(self, line: str) -> None:
        super().__init__(f"not a line of py-spy's raw format with thread ids: {line[:200]!r}")
        self.line = line


def parse_raw(lines: Iterable[str]) -> Iterator[FrameStack]:
    """Read py-spy's raw format (`--format raw --threads`): `thread (ID): name;frame;frame... samples`.

    Raises ProfileLineWrong.
    """
    for line in lines:
        stack, _, samples = line.rstrip("\n").rpartition(" ")
        thread, *frames = stack.split(";")
        name, _, rest = thread.partition("(")
        thread_id, found, thread_name = rest.partition(")")
        if name != "thread " or not found or not thread_id.isdecimal() or not samples.isdecimal():
            raise ProfileLineWrong(line)
        yield FrameStack(int(thread_id), thread_name.removeprefix(": "), tuple(frames), int(samples))


def place_of(frames: Iterable[str], places: Iterable[Place]) -> Place | None:
    """Find the place of a stack, outermost frame first; None where no frame has one."""
    known = tuple(places)
    for frame in reversed(tuple(frames)):
        function, _, where = frame.rpartition(" (")
        for place in known:
            if where.startswith(place.path) and function.startswith(place.functions):
                return place
    return None


def tallies(stacks: Iterable[FrameStack], places: Iterable[Place]) -> dict[int, Tally]:
    """Count samples by thread id and stage. What has no place is OTHER's."""
    counted: dict[int, Tally] = {}
    known = tuple(places)
    for stack in stacks:
        place = place_of(stack.frames, known)
        stage = OTHER if place is None else place.stage
        tally = counted.setdefault(stack.thread_id, Tally(Counter(), Counter()))
        tally.stages[stage] += stack.samples
        # Only a frame of its own: a function that is called from there is not in the kernel.
        if place is not None and place.calls_kernel and place_of(stack.frames[-1:], known) is place:
            tally.at_kernel[stage] += stack.samples
    return counted


def apportion(total: int, weights: Mapping[_Key, float]) -> dict[_Key, int]:
    """Divide a whole by weights into whole parts that add up to it: the largest remainders are rounded up.

    Raises ValueError where no weight is above zero.
    """
    sum_of_weights = sum(weights.values())
    if sum_of_weights <= 0 or min(weights.values()) < 0:
        raise ValueError(f"nothing to divide {total} by: {dict(weights)}")
    exact = {key: total * weight / sum_of_weights for key, weight in weights.items()}
    parts = {key: int(share) for key, share in exact.items()}
    by_remainder = sorted(exact, key=lambda key: parts[key] - exact[key])
    for key in by_remainder[: total - sum(parts.values())]:
        parts[key] += 1
    return parts


def user_weights(tally: Tally, samples_of_its_own: float) -> dict[str, float]:
    """Weights of the stages in a thread's own time: its samples, without those that were not of its own time.

    samples_of_its_own: as many as a thread gives that runs code of its own as long as this one did.
    A sample tells neither own time from the kernel's, nor running from waiting for a core. A thread waits for one
    mostly where it was woken, or has woken another: in the kernel. So both are taken out where the kernel is called,
    evenly.
    """
    at_kernel = tally.at_kernel.total()
    too_many = max(0.0, tally.stages.total() - samples_of_its_own)
    taken_out = min(1.0, too_many / at_kernel) if at_kernel else 0.0
    weights = {stage: samples - taken_out * tally.at_kernel[stage] for stage, samples in tally.stages.items()}
    return weights if sum(weights.values()) > 0 else {OTHER: 1.0}


def ledger(
    threads: Mapping[int, ThreadCpu],
    weights: Mapping[int, Mapping[str, float]],
    answers: int,
    ticks_per_s: int,
    unsampled: str,
) -> list[Entry]:
    """Divide what each thread of a process cost a request by stage; the entries add up to the process's cost.

    weights: of the stages in a thread's own time, by thread id; threads without are `unsampled`'s.
    """
    parts = {
        (thread_id, kind): ticks
        for thread_id, cpu in threads.items()
        for kind, ticks in (("user", cpu.user_ticks), ("system", cpu.system_ticks))
    }
    ticks = sum(parts.values())
    if not ticks:
        return []
    steps_of = apportion(round(ticks * 1_000_000 * STEPS_PER_US / (ticks_per_s * answers)), parts)
    entries = []
    for thread_id, cpu in threads.items():
        by_stage = apportion(steps_of[thread_id, "user"], weights.get(thread_id, {unsampled: 1.0}))
        by_stage[KERNEL] = steps_of[thread_id, "system"]
        entries += [Entry(cpu.name, stage, steps) for stage, steps in by_stage.items() if steps]
    return entries
