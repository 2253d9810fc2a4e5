import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "gateway",
    "model_workers",
    "feature_store",
    "experiments",
    "contracts",
    "telemetry",
    "settings",
    "http_server",
    "analysis",
    "experiments_cli",
    "demo",
)

# One interpreter imports the foreign packages, which take seconds; then each module of ours is imported in a fork of
# it, where none of ours has been imported. Only top-level names of foreign packages are there beforehand, so that a
# module which forgets to import `pyarrow.parquet` still fails.
IMPORT_EACH_ALONE = """
import importlib, json, os, sys, traceback, warnings

modules, foreign = json.load(sys.stdin)
for name in foreign:
    importlib.import_module(name)
failures = {}
for module in modules:
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of a fork beside a foreign package's thread
        child = os.fork()
    if child == 0:
        try:
            importlib.import_module(module)
        except BaseException:
            os.write(writer, traceback.format_exc()[-2000:].encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        failure = answer.read()
    _, status = os.waitpid(child, 0)
    if failure or status:
        failures[module] = failure or f"status {status}"
json.dump(failures, sys.stdout)
"""


def source_files() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_by(path: Path) -> set[str]:
    """Give the top-level names that a file imports at its top level."""
    names: set[str] = set()
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            names.add(statement.module.partition(".")[0])
    return names


def test_every_module_can_be_imported_alone_without_a_warning():
    files = source_files()
    foreign = sorted(set().union(*map(imported_by, files)) - set(PACKAGES))
    modules = [module_of(path) for path in files]
    assert {"gateway.__main__", "demo.__main__", "contracts", "model_workers.runtimes.onnx"} <= set(modules)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_EACH_ALONE],
        input=json.dumps([modules, foreign]),
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    failures = json.loads(done.stdout)
    assert not failures, "\n\n".join(f"{module}: {failure}" for module, failure in failures.items())


@pytest.mark.parametrize("package", ["contracts", "experiments", "http_server", "settings", "telemetry"])
def test_a_lowest_room_is_loaded_without_any_other_of_ours(package: str):
    modules = [module_of(path) for path in source_files() if path.is_relative_to(ROOT / package)]
    imports = "".join(f"import {module}\n" for module in modules)
    program = f"import json, sys\n{imports}print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert loaded & set(PACKAGES) == {package}


def test_the_import_contracts_hold():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
