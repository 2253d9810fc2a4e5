"""A gRPC edge over models of the test's own, on a real port, and a caller of it."""

import asyncio
import contextlib

import grpc
import numpy as np
from prometheus_client import CollectorRegistry

from contracts.manifest import Input, Output, encode_manifest
from model_workers.batcher import Batcher
from model_workers.errors import LoadFailed, UnknownModel
from model_workers.executions import Executions
from model_workers.grpc_edge.address import GrpcAddress
from model_workers.grpc_edge.edges import GrpcEdges
from model_workers.grpc_edge.messages import health_messages, inference_messages
from model_workers.metrics import VersionMetrics, WorkerMetrics
from model_workers.model_version import ModelVersion
from model_workers.repository_index import IndexEntry
from model_workers.request_rows import RowReader
from model_workers.served_models import ServedModels, ServedVersion
from tests.unit.model_workers.fake_parts import FakeRuntime, HandClock
from tests.unit.model_workers.published_models import onnx_manifest
from tests.unit.model_workers.running_worker import free_port

QUEUE_ROWS_MAX = 8
MESSAGE_BYTES_MAX = 200_000
UNTIL_S_MAX = 10
OUTPUTS = (Output("total", "FP32"), Output("both", "FP32", (-1, 2)), Output("half", "FP16"))
SERVICE = "inference.GRPCInferenceService"
CLASSES = inference_messages() | health_messages()


def sums(inputs):
    """Answer each row with its sum, itself and half of its sum; a first value of -1 fails."""
    x = inputs["x"]
    if (x[:, 0] == -1).any():
        raise ValueError("a row that this model cannot take")
    return {"total": x.sum(axis=1), "both": x, "half": x.sum(axis=1) / 2}


class RecordingControl:
    """Stands in for RepositoryControl, and keeps what it is asked."""

    def __init__(self):
        self.asked = []

    async def refresh(self):
        self.asked.append("refresh")

    def index(self, ready_only):
        broken = IndexEntry("m", "3", "UNAVAILABLE", "its artifact is damaged")
        return [IndexEntry("m", "2", "READY", ""), *([] if ready_only else [broken])]

    async def load(self, model, version=None):
        self.asked.append(("load", model, version))
        if model == "broken":
            raise LoadFailed(model, "1", "its artifact is damaged")
        if model != "m":
            raise UnknownModel(model, version, ("m",), to_load=True)

    async def unload(self, model, version=None):
        self.asked.append(("unload", model, version))


class GrpcBench:
    """Model `m` of inputs `x`, and both ports over it."""

    def __init__(self, executor=None):
        self.models, self.registry, self.control = ServedModels(), CollectorRegistry(), RecordingControl()
        self.metrics, self.clock, self._executor = WorkerMetrics(self.registry), HandClock(), executor
        self.edges = GrpcEdges(self.models, self.metrics, self.control, release="1.2.3")
        self.port = free_port()

    def serve(self, *versions):
        for version in versions:
            manifest = onnx_manifest("m", version, 2, inputs=(Input("x", "FP32", (-1, 2)),), outputs=OUTPUTS)
            metrics = VersionMetrics(self.metrics, "m", version, clock_us=self.clock, wall_clock_ms=lambda: 1_700_000)
            loop = asyncio.get_running_loop()
            batcher = Batcher(
                ModelVersion(manifest, FakeRuntime(sums)).execute,
                self._executor or Executions(loop, threads=0, inline_rows_max=1 << 20, name="m"),
                batch_rows_max=manifest.batch_rows_max,
                queue_rows_max=QUEUE_ROWS_MAX,
                executions_max=1,
                clock_us=self.clock,
                observer=metrics,
            )
            self.models.add(
                ServedVersion(
                    manifest=manifest,
                    document=encode_manifest(manifest),
                    reader=RowReader(manifest, QUEUE_ROWS_MAX),
                    batcher=batcher,
                    metrics=metrics,
                    datatypes={output.name: output.dtype for output in OUTPUTS},
                )
            )
        self.models.ready = True

    @contextlib.asynccontextmanager
    async def listening(self, *, admin=False):
        """Listen, and give a caller."""
        address = GrpcAddress("127.0.0.1", self.port, "--grpc-port")
        server = self.edges.admin_server(address) if admin else self.edges.data_server(address, MESSAGE_BYTES_MAX)
        await server.start()
        try:
            async with self.calling() as caller:
                yield caller
        finally:
            await server.stop(0)

    @contextlib.asynccontextmanager
    async def calling(self):
        """Give a caller with a connection of its own."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options=options) as channel:
            yield Caller(channel)

    def failures(self):
        """Tell the counted failures: by model, version and reason."""
        return {labels: int(count) for labels, count in self.metrics.failures.values.items()}


class Caller:
    """Calls methods with messages or with bytes."""

    def __init__(self, channel):
        self._channel = channel

    def call(self, method, request=None, *, service=SERVICE, timeout=10):
        kind = "HealthCheck" if method == "Check" else method
        encode = (lambda data: data) if isinstance(request, bytes) else lambda message: message.SerializeToString()
        decode = CLASSES[f"{kind}Response"].FromString
        stub = self._channel.unary_unary(
            f"/{service}/{method}", request_serializer=encode, response_deserializer=decode
        )
        return stub(CLASSES[f"{kind}Request"]() if request is None else request, timeout=timeout)

    async def refused(self, method, request=None, **options):
        """Call what must fail. Returns the code's name and the details."""
        try:
            answer = await self.call(method, request, **options)
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details()
        raise AssertionError(f"answered: {answer}")


def infer_request(rows=((1, 2), (3, 4)), *, raw=True, outputs=(), **fields):
    """Make a ModelInferRequest to `m`, its rows raw or typed."""
    x = np.array(rows, dtype=np.float32)
    request = CLASSES["ModelInferRequest"](**{"model_name": "m", **fields})
    entry = request.inputs.add(name="x", datatype="FP32", shape=x.shape)
    for name in outputs:
        request.outputs.add(name=name)
    if raw:
        request.raw_input_contents.append(x.tobytes())
    else:
        entry.contents.fp32_contents.extend(x.ravel().tolist())
    return request


async def until(condition):
    """Wait until the condition holds; fail at the deadline."""
    async with asyncio.timeout(UNTIL_S_MAX):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the library, which tells nobody
            await asyncio.sleep(0.001)


def talk(scenario, *, versions=("2", "10"), admin=False, **parts):
    """Run `scenario(caller, bench)` against a fresh edge. Returns what it returns."""

    async def run():
        bench = GrpcBench(**parts)
        bench.serve(*versions)
        async with bench.listening(admin=admin) as caller:
            return await scenario(caller, bench)

    return asyncio.run(run())


def ask(method, request=None, **options):
    """Ask a fresh edge one thing."""
    return talk(lambda caller, _: caller.call(method, request), **options)


def refusal(method, request=None, **options):
    """Ask a fresh edge what it must refuse. Returns the code's name and the details."""
    return talk(lambda caller, _: caller.refused(method, request), **options)
