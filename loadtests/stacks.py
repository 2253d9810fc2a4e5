"""The stacks that are compared: which programs each is made of, and how each is started."""

import http.client
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loadtests.bench_data import LIGHTGBM_VERSION, MODEL, ONNX_VERSION, BenchData
from loadtests.machine import core_count
from loadtests.rank_data import RANK_MODEL, RANK_VERSION
from loadtests.stack_process import StackProcess, stop_all

PATH = f"/v1/models/{MODEL}:predict"
RANK_PATH = f"/v1/models/{RANK_MODEL}:predict"
YARDSTICK = "bare-uvicorn"
EMPTY_FASTAPI = "empty-fastapi"
FASTAPI_HTTPX = "fastapi-httpx"
FASTAPI_AIOHTTP = "fastapi-aiohttp"
FASTAPI_MONOLITH = "fastapi-monolith"
PRODUCT = "sekisho"
DEADLINE_MS = 1_000
"""Of the product's routes. The others have none."""

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
    log_directory: Path | None = None
    """Where it writes its predictions; None: nowhere."""


class RunningStacks:
    """Several stacks, all up. Only one is loaded at a time; the others wait idle.

    `with RunningStacks(stacks, directory) as running:`: every process has ended afterwards. Raises ProcessFailed.
    """

    def __init__(self, stacks: list[Stack], directory: Path) -> None:
        self.stacks = {stack.name: stack for stack in stacks}
        self._directory = directory
        self._processes: dict[str, list[StackProcess]] = {stack.name: [] for stack in stacks}

    def __enter__(self) -> "RunningStacks":
        try:
            self._start([(stack, backend) for stack in self.stacks.values() for backend in stack.backends])
            self._start([(stack, stack.front) for stack in self.stacks.values()])
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
    """Describe the stacks, in the order of `names`, each on free ports. `directory` takes their files.

    The names are those of STACK_NAMES and `scaled_name`.
    """
    makers: dict[str, Callable[[], Stack]] = {
        YARDSTICK: lambda: _constant(YARDSTICK, "loadtests.baselines.bare_uvicorn"),
        EMPTY_FASTAPI: lambda: _constant(EMPTY_FASTAPI, "loadtests.baselines.empty_fastapi"),
        FASTAPI_HTTPX: lambda: _fastapi(FASTAPI_HTTPX, data, redis_url),
        FASTAPI_AIOHTTP: lambda: _fastapi(FASTAPI_AIOHTTP, data, redis_url),
        FASTAPI_MONOLITH: lambda: _fastapi_monolith(data, redis_url),
    }
    for processes in scaled_processes(core_count()):
        name = scaled_name(processes)
        makers[name] = partial(_sekisho, name, processes, data, redis_url, directory)
    return [makers[name]() for name in names]


STACK_NAMES = (YARDSTICK, EMPTY_FASTAPI, FASTAPI_HTTPX, FASTAPI_AIOHTTP, FASTAPI_MONOLITH, PRODUCT)
"""Every stack, the yardstick first."""


def scaled_name(processes: int) -> str:
    """The product with this many gateway processes."""
    return PRODUCT if processes == 1 else f"{PRODUCT}-{processes}-processes"


def scaled_processes(cores: int) -> list[int]:
    """1, 2, 4, ... gateway processes, one a core at most."""
    return [1 << doublings for doublings in range(max(1, cores).bit_length())]


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


def _sekisho(name: str, processes: int, data: BenchData, redis_url: str, directory: Path) -> Stack:
    ports = {version: free_port() for version in _VERSIONS}
    workers = tuple(_worker(version, port, data) for version, port in ports.items())
    port, admin_port = free_port(), free_port()
    routes, log_directory = directory / f"{name}.models.yaml", directory / f"{name}.log-dir"
    routes.write_text(_routes_yaml(ports))
    command = python_program(
        *("gateway", "--config", routes, "--experiments", data.experiments_file, "--redis", redis_url),
        *("--port", port, "--admin-port", admin_port, "--processes", processes),
        *("--log-dir", log_directory, "--state-dir", directory / f"{name}.state", "--shutdown-grace-s", 0),
    )
    front = Program("gateway", "gateway", command, admin_port, "/readyz")
    return Stack(name, workers, front, port, log_directory=log_directory)


def _worker(version: str, port: int, data: BenchData) -> Program:
    # The ranking model has no process of its own: it is asked only when nothing else is.
    served = [f"{MODEL}@{version}", *([f"{RANK_MODEL}@{RANK_VERSION}"] if version == ONNX_VERSION else [])]
    models = [word for each in served for word in ("--model", each)]
    command = python_program(
        "model_workers", "--repository", data.repository, *models, *("--port", port, "--shutdown-grace-s", 0)
    )
    return Program(f"worker-{version}", "workers", command, port, "/v2/health/ready")


def _routes_yaml(ports: dict[str, int]) -> str:
    urls = {version: f'["http://127.0.0.1:{port}"]' for version, port in ports.items()}
    bench = "".join(f'      "{version}": {{workers: {url}}}\n' for version, url in urls.items())
    rank = f'      "{RANK_VERSION}": {{workers: {urls[ONNX_VERSION]}}}\n'
    return f"models:\n{_route_yaml(MODEL, ONNX_VERSION, bench)}{_route_yaml(RANK_MODEL, RANK_VERSION, rank)}"


def _route_yaml(model: str, default_version: str, versions: str) -> str:
    return (
        f'  {model}:\n    unit: user\n    deadline_ms: {DEADLINE_MS}\n    default_version: "{default_version}"\n'
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
