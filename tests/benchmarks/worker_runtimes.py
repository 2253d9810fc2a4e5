"""What the runtimes themselves cost: `python tests/benchmarks/worker_runtimes.py [--rounds 99]`.

Trains 100 trees of 31 leaves over 50 features and prints for both runtimes the µs of one call of 1 and of 32 rows, in
float32: in the runtime alone, and behind the manifest's outputs, as a worker calls it. Beside it stands what the
libraries' own Python interfaces cost, and a lone row through a batcher on an idle uvloop. All take turns; each figure
is the least of the short rounds, for more is what the machine was busy with beside.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import lightgbm
import numpy as np
import onnxruntime
import uvloop
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from model_workers.batcher import Batcher
from model_workers.executions import Executions
from model_workers.loading import load_version
from model_workers.model_version import ModelVersion
from model_workers.repository import VersionDirectory, select_versions
from model_workers.request_rows import Rows
from model_workers.runtimes.lookup import find_runtime
from tests.unit.model_workers.fake_parts import RecordingObserver
from tests.unit.model_workers.published_models import lightgbm_manifest, onnx_manifest, publish

COLUMNS = 50
TREES = 100
LEAVES = 31
CALLS_PER_ROUND = 100
ROW_COUNTS = (1, 32)
OUTPUT = "malignant"


def clock_us() -> int:
    """Read the monotonic clock in µs."""
    return time.monotonic_ns() // 1_000


def publish_models(repository: Path) -> tuple[lightgbm.Booster, onnxruntime.InferenceSession]:
    """Publish one model for each runtime. Returns the same models behind the libraries' own interfaces."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(2_000, COLUMNS)).astype(np.float32)
    target = (rows[:, 0] + rows[:, 1] * rows[:, 2] > 0).astype(int)
    settings = {"objective": "binary", "num_leaves": LEAVES, "verbosity": -1, "num_threads": 1}
    booster = lightgbm.train(settings, lightgbm.Dataset(rows, target), TREES)
    publish(repository, booster.model_to_string().encode(), lightgbm_manifest("bench", "lightgbm", COLUMNS))
    trees = GradientBoostingClassifier(n_estimators=TREES, max_leaf_nodes=LEAVES, max_depth=None, subsample=0.5)
    converted = to_onnx(trees.fit(rows, target), rows[:1], options={"zipmap": False}, target_opset=17)
    artifact = converted.SerializeToString()
    publish(repository, artifact, onnx_manifest("bench", "onnxruntime", COLUMNS))
    return booster, onnxruntime.InferenceSession(artifact, providers=["CPUExecutionProvider"])


def calls_of(directory: VersionDirectory, matrix: np.ndarray) -> dict[str, Callable[[], object]]:
    """Give the ways to call one published model."""
    model = load_version(directory, clock_us).model
    manifest = model.manifest
    runtime = find_runtime(manifest.runtime)(directory.path, manifest)
    source = manifest.outputs[0].source or OUTPUT
    inputs = {manifest.inputs[0].name: matrix}
    return {
        f"{manifest.runtime}, the runtime": lambda: runtime.infer(inputs, [source]),
        f"{manifest.runtime}, the version": lambda: model.execute(inputs, [OUTPUT]),
    }


def us_per_call(call: Callable[[], object]) -> float:
    """Time one round of a call, in µs."""
    began_ns = time.perf_counter_ns()
    for _ in range(CALLS_PER_ROUND):
        call()
    return (time.perf_counter_ns() - began_ns) / CALLS_PER_ROUND / 1e3


async def us_per_submission(model: ModelVersion, rounds: int) -> float:
    """Time a lone row from submission to answer on an idle loop, in µs."""
    executions = Executions(asyncio.get_running_loop(), threads=0, inline_rows_max=1, name="inline")
    batcher = Batcher(
        model.execute,
        executions,
        batch_rows_max=1_024,
        queue_rows_max=1_024,
        executions_max=1,
        clock_us=clock_us,
        observer=RecordingObserver(),
    )
    matrix = np.zeros((1, COLUMNS), dtype=np.float32)
    rows = Rows({model.manifest.inputs[0].name: matrix}, 1, ((COLUMNS,),))
    costs = []
    for _ in range(rounds):
        began_ns = time.perf_counter_ns()
        for _ in range(CALLS_PER_ROUND):
            await batcher.submit(rows, (OUTPUT,), timeout_us=1_000_000)
        costs.append((time.perf_counter_ns() - began_ns) / CALLS_PER_ROUND / 1e3)
    return min(costs)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=99, help="rounds of each measurement")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        booster, session = publish_models(Path(folder))
        directories = select_versions(Path(folder), [])
        for row_count in ROW_COUNTS:
            matrix = np.random.default_rng(1).normal(size=(row_count, COLUMNS)).astype(np.float32)
            ways: dict[str, Callable[[], object]] = {
                "lightgbm, Booster.predict": lambda matrix=matrix: booster.predict(matrix, num_threads=1),
                "onnxruntime, InferenceSession.run": lambda matrix=matrix: session.run(None, {"X": matrix}),
            }
            for directory in directories:
                ways |= calls_of(directory, matrix)
            costs: dict[str, list[float]] = {name: [] for name in sorted(ways)}
            for _ in range(rounds):
                for name, each in costs.items():
                    each.append(us_per_call(ways[name]))
            for name, each in costs.items():
                print(f"{name:34} {row_count:2} rows: {min(each):6.1f} µs")
        for directory in directories:
            model = load_version(directory, clock_us).model
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                cost = runner.run(us_per_submission(model, rounds))
            print(f"{directory.version + ', through a batcher':34}  1 rows: {cost:6.1f} µs")


if __name__ == "__main__":
    main()
