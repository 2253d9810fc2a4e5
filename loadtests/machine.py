"""Where and from what a result came: machine, versions, commit."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import psutil

_PACKAGES = (
    "uvicorn",
    "uvloop",
    "httptools",
    "fastapi",
    "pydantic",
    "httpx",
    "redis",
    "hiredis",
    "onnxruntime",
    "lightgbm",
)
_GIT_TIMEOUT_S = 10


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine, as far as it explains a figure."""

    cpu: str
    cores: int
    memory_gb: float
    kernel: str
    python: str
    packages: dict[str, str]


def describe_machine() -> Machine:
    """Describe this machine."""
    return Machine(
        cpu=_cpu_model(),
        cores=core_count(),
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        kernel=platform.release().partition("-")[0],  # what follows is the name of somebody's build
        python=platform.python_version(),
        packages={name: found for name in _PACKAGES if (found := _package_version(name))},
    )


def core_count() -> int:
    """Cores of this machine."""
    return psutil.cpu_count() or 1


def commit_of(directory: Path) -> str:
    """The short commit of a working tree, with `-changed` where files differ from it, or `uncommitted`."""
    commit = _git(directory, "rev-parse", "--short", "HEAD")
    if not commit:
        return "uncommitted"
    return f"{commit}-changed" if _git(directory, "status", "--porcelain") else commit


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _package_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(directory: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
