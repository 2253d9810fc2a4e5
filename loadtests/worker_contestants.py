"""Who meets in the workers' benchmark: MLServer in several settings, and this repository's worker."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from loadtests.bench_data import LIGHTGBM_VERSION, MODEL, BenchData
from loadtests.cell import RequestKind
from loadtests.stacks import Program, Stack, free_port, python_program

PEERS = Path(__file__).resolve().parent.parent / ".venv-peers"
MLSERVER, WORKER, WORKER_BINARY = "mlserver", "sekisho-worker", "sekisho-worker-binary"

PATH = f"/v2/models/{MODEL}/infer"
_READY_PATH = f"/v2/models/{MODEL}/ready"
_PACKAGES_TIMEOUT_S = 30
_PACKAGES = ("mlserver", "mlserver-lightgbm", "lightgbm", "fastapi", "pydantic", "uvicorn", "uvloop", "orjson", "numpy")


class PeersMissing(RuntimeError):
    """MLServer is not installed here."""

    def __init__(self, program: Path) -> None:
        super().__init__(f"there is no {program.parent.parent.name}/bin/{program.name}: run `make peers` first")
        self.program = program


@dataclass(frozen=True, slots=True, kw_only=True)
class MlserverSettings:
    """One way to run MLServer. `max_batch_size` 0 is without adaptive batching."""

    parallel_workers: int
    max_batch_size: int = 0
    max_batch_time_ms: float = 0.0

    def __str__(self) -> str:
        batching = (
            f"batch {self.max_batch_size} in {self.max_batch_time_ms:g} ms" if self.max_batch_size else "no batching"
        )
        return f"workers {self.parallel_workers}, {batching}"


_BATCHING = ((0, 0.0), (16, 0.5), (64, 0.5), (64, 2.0))
CANDIDATES = tuple(
    MlserverSettings(parallel_workers=workers, max_batch_size=size, max_batch_time_ms=time_ms)
    for workers in (0, 1)
    for size, time_ms in _BATCHING
)
"""What is tried for MLServer; each load is then put on the settings that are best under it."""

# uvloop 0.22 and newer make no event loop unasked any more, which MLServer 1.7's inference processes rely on: without
# this they die at start. A Python finds it under this name on its path.
_EVENT_LOOP_UNASKED = """\
import uvloop

given = uvloop.EventLoopPolicy.get_event_loop


def get_event_loop(self):
    try:
        return given(self)
    except RuntimeError:
        self.set_event_loop(self.new_event_loop())
        return given(self)


uvloop.EventLoopPolicy.get_event_loop = get_event_loop
"""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A row of the table: a running program and the form of the requests that it gets."""

    name: str
    stack: Stack
    kind: RequestKind


def mlserver_program() -> Path:
    """Find MLServer. Raises PeersMissing."""
    program = PEERS / "bin" / "mlserver"
    if not program.exists():
        raise PeersMissing(program)
    return program


def peer_packages() -> dict[str, str]:
    """Name the versions of what MLServer runs on. Raises PeersMissing, subprocess.SubprocessError and OSError."""
    mlserver_program()
    code = (
        "import json, sys; from importlib.metadata import version; "
        "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    )
    command = [str(PEERS / "bin" / "python"), "-I", "-c", code, *_PACKAGES]
    told = subprocess.run(command, capture_output=True, text=True, timeout=_PACKAGES_TIMEOUT_S, check=True)
    packages: dict[str, str] = json.loads(told.stdout)
    return packages


def mlserver(name: str, settings: MlserverSettings, data: BenchData, directory: Path) -> Stack:
    """Describe one MLServer with the LightGBM model; its settings are written below `directory`.

    Nothing that costs it time is left on: no access log, no compression. One thread a prediction, as the other side.
    Raises PeersMissing.
    """
    port = free_port()
    folder = directory / name
    (folder / MODEL).mkdir(parents=True)
    server = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
        "metrics_dir": str(folder),
        "debug": False,
        "gzip_enabled": False,
        "parallel_workers": settings.parallel_workers,
    }
    model = {
        "name": MODEL,
        "implementation": "mlserver_lightgbm.LightGBMModel",
        "parameters": {"uri": str(data.lightgbm_file)},
        "max_batch_size": settings.max_batch_size,
        "max_batch_time": settings.max_batch_time_ms / 1e3,
    }
    (folder / "settings.json").write_text(json.dumps(server))
    (folder / MODEL / "model-settings.json").write_text(json.dumps(model))
    patches = folder / "patches"
    patches.mkdir()
    (patches / "sitecustomize.py").write_text(_EVENT_LOOP_UNASKED)
    # By the program env, because a child inherits this process's own variables.
    variables = (f"PYTHONPATH={patches}", "OMP_NUM_THREADS=1")
    command = (str(shutil.which("env")), *variables, str(mlserver_program()), "start", str(folder))
    return Stack(name, (), Program("server", "server", command, port, _READY_PATH), port)


def worker(data: BenchData) -> Stack:
    """Describe this repository's worker with the same model file."""
    port = free_port()
    command = python_program(
        *("model_workers", "--repository", data.repository, "--model", f"{MODEL}@{LIGHTGBM_VERSION}"),
        *("--port", port, "--shutdown-grace-s", 0),
    )
    return Stack(WORKER, (), Program("server", "server", command, port, "/v2/health/ready"), port)
