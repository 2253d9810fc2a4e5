"""The stacks that are compared: which programs each is made of, and how each is started."""

import http.client
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loadtests.bench_data import LIGHTGBM_VERSION, MODEL, ONNX_VERSION, BenchData
from loadtests.stack_process import StackProcess, stop_all

PATH = f"/v1/models/{MODEL}:predict"
YARDSTICK = "bare-uvicorn"
EMPTY_FASTAPI = "empty-fastapi"
FASTAPI_HTTPX = "fastapi-httpx"
FASTAPI_AIOHTTP = "fastapi-aiohttp"
FASTAPI_MONOLITH = "fastapi-monolith"
PRODUCT = "sekisho"
DEADLINE_MS = 1_000
"""Of the product's route. The others have none."""

READY_TIMEOUT_S = 2.0
_VERSIONS = (ONNX_VERSION, LIGHTGBM_VERSION)


@dataclass(frozen=True, slots=True)
class Program:
    """One process: its role in the table of costs, its command, and the port and path that answer 200 once ready."""

    name: str
    role: str
    command: tuple[str, ...]
    ready_port: int
    ready_path: str


@dataclass(frozen=True, slots=True)
class Stack:
    """`backends` must be ready before `front` starts. `constant`: its answer is one, so only its status is checked."""

    name: str
    backends: tuple[Program, ...]
    front: Program
    port: int
    constant: bool = False


class RunningStacks:
    """Several stacks, all up. Only one is loaded at a time; the others wait idle.

    `with RunningStacks(stacks, directory) as running:`: every process has ended afterwards. Raises ProcessFailed.
    """

    def __init__(self, stacks: list[Stack], directory: Path) -> None:
        self._stacks, self._directory = stacks, directory
        self._processes: dict[str, list[StackProcess]] = {stack.name: [] for stack in stacks}

    def __enter__(self) -> "RunningStacks":
        try:
            self._start([(stack, backend) for stack in self._stacks for backend in stack.backends])
            self._start([(stack, stack.front) for stack in self._stacks])
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def processes(self, stack: Stack) -> list[StackProcess]:
        """The processes of one stack."""
        return self._processes[stack.name]

    def stop(self) -> None:
        """End every process: fronts before what they call, so that none meets a closed door."""
        stop_all([processes[-1] for processes in self._processes.values() if processes])
        stop_all([process for processes in self._processes.values() for process in processes])

    def _start(self, programs: list[tuple[Stack, Program]]) -> None:
        # All of them before the first is waited for: imports take seconds.
        started = []
        for stack, program in programs:
            process = StackProcess(f"{stack.name}-{program.name}", program.role, program.command, self._directory)
            self._processes[stack.name].append(process)
            started.append((process, program))
        for process, program in started:
            process.wait_until(partial(_is_ready, program))


def make_stacks(names: list[str], data: BenchData, redis_url: str, directory: Path) -> list[Stack]:
    """Describe the stacks, in the order of `names`, each on free ports. `directory` takes their files."""
    makers: dict[str, Callable[[], Stack]] = {
        YARDSTICK: lambda: _constant(YARDSTICK, "loadtests.baselines.bare_uvicorn"),
        EMPTY_FASTAPI: lambda: _constant(EMPTY_FASTAPI, "loadtests.baselines.empty_fastapi"),
        FASTAPI_HTTPX: lambda: _fastapi(FASTAPI_HTTPX, data, redis_url),
        FASTAPI_AIOHTTP: lambda: _fastapi(FASTAPI_AIOHTTP, data, redis_url),
        FASTAPI_MONOLITH: lambda: _fastapi_monolith(data, redis_url),
        PRODUCT: lambda: _sekisho(data, redis_url, directory),
    }
    return [makers[name]() for name in names]


STACK_NAMES = (YARDSTICK, EMPTY_FASTAPI, FASTAPI_HTTPX, FASTAPI_AIOHTTP, FASTAPI_MONOLITH, PRODUCT)
"""Every stack, the yardstick first."""


def _constant(name: str, module: str) -> Stack:
    port = free_port()
    front = Program("server", "server", python_program(module, "--port", port), port, "/healthz")
    return Stack(name, (), front, port, constant=True)


def _fastapi(name: str, data: BenchData, redis_url: str) -> Stack:
    # The two differ in the gateway's client and its collector; the aiohttp one's workers have theirs frozen too.
    ports = {version: free_port() for version in _VERSIONS}
    frozen = ("--freeze",) if name == FASTAPI_AIOHTTP else ()
    workers = tuple(
        Program(
            f"worker-{version}",
            "workers",
            python_program(
                "loadtests.baselines.fastapi_worker", "--model-file", file, "--port", ports[version], *frozen
            ),
            ports[version],
            "/healthz",
        )
        for version, file in zip(_VERSIONS, (data.onnx_file, data.lightgbm_file), strict=True)
    )
    port = free_port()
    urls = [f"http://127.0.0.1:{ports[version]}" for version in _VERSIONS]
    module = f"loadtests.baselines.{name.replace('-', '_')}_gateway"
    command = python_program(module, "--redis", redis_url, "--port", port, "--workers", *urls)
    return Stack(name, workers, Program("gateway", "gateway", command, port, "/healthz"), port)


def _fastapi_monolith(data: BenchData, redis_url: str) -> Stack:
    port = free_port()
    files = ["--onnx-file", data.onnx_file, "--lightgbm-file", data.lightgbm_file]
    command = python_program("loadtests.baselines.fastapi_monolith", "--redis", redis_url, "--port", port, *files)
    return Stack(FASTAPI_MONOLITH, (), Program("service", "server", command, port, "/healthz"), port)


def _sekisho(data: BenchData, redis_url: str, directory: Path) -> Stack:
    ports = {version: free_port() for version in _VERSIONS}
    workers = tuple(
        Program(
            f"worker-{version}",
            "workers",
            python_program(
                *("model_workers", "--repository", data.repository, "--model", f"{MODEL}@{version}"),
                *("--port", ports[version], "--shutdown-grace-s", 0),
            ),
            ports[version],
            "/v2/health/ready",
        )
        for version in _VERSIONS
    )
    port, admin_port = free_port(), free_port()
    routes = directory / "models.yaml"
    routes.write_text(_routes_yaml(ports))
    command = python_program(
        *("gateway", "--config", routes, "--experiments", data.experiments_file, "--redis", redis_url),
        *("--port", port, "--admin-port", admin_port, "--log-dir", directory / "prediction-log"),
        *("--shutdown-grace-s", 0),
    )
    return Stack(PRODUCT, workers, Program("gateway", "gateway", command, admin_port, "/readyz"), port)


def _routes_yaml(ports: dict[str, int]) -> str:
    versions = "".join(f'      "{v}": {{workers: ["http://127.0.0.1:{port}"]}}\n' for v, port in ports.items())
    return (
        f'models:\n  {MODEL}:\n    unit: user\n    deadline_ms: {DEADLINE_MS}\n    default_version: "1"\n'
        f"    versions:\n{versions}"
    )


def python_program(module: str, *arguments: object) -> tuple[str, ...]:
    """A command that runs a module with this interpreter."""
    return (sys.executable, "-m", module, *map(str, arguments))


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _is_ready(program: Program) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", program.ready_port, timeout=READY_TIMEOUT_S)
    try:
        connection.request("GET", program.ready_path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
