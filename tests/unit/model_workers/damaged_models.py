"""Loads a model over and over, each time damaged otherwise: `python damaged_models.py RUNTIME ARTIFACT COLUMNS WORK`.

A program of its own, because what it looks for is a crash. Prints how many copies were refused and how many taken.
"""

import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from model_workers.errors import WorkerError
from model_workers.loading import load_version
from model_workers.repository import VersionDirectory
from tests.unit.model_workers.published_models import lightgbm_manifest, onnx_manifest, publish

TRUNCATIONS = 100
FLIPS = 100
DIGITS = 100


def damaged(artifact: bytes) -> Iterator[bytes]:
    """Yield cut copies, copies with one bit flipped, and copies with three bytes made other digits."""
    chance = random.Random(0)
    for part in range(TRUNCATIONS):
        yield artifact[: len(artifact) * part // TRUNCATIONS]
    for _ in range(FLIPS):
        copy = bytearray(artifact)
        copy[chance.randrange(len(copy))] ^= 1 << chance.randrange(8)
        yield bytes(copy)
    digits = [at for at, byte in enumerate(artifact) if chr(byte).isdigit()]
    for _ in range(DIGITS):
        copy = bytearray(artifact)
        for at in chance.sample(digits, 3):
            copy[at] = ord(chance.choice("-0123456789"))
        yield bytes(copy)


def outcome(runtime: str, artifact: bytes, columns: int, directory: Path) -> str:
    """Load and run one copy. Anything but a clear refusal or an answer goes up."""
    manifest = (onnx_manifest if runtime == "onnxruntime" else lightgbm_manifest)("damaged", "1", columns)
    path = publish(directory, artifact, manifest)
    try:
        model = load_version(VersionDirectory("damaged", "1", path), lambda: 0).model
    except WorkerError:
        return "refused"
    rows = np.random.default_rng(0).normal(size=(64, columns)).astype(np.float32)
    rows[:16] = np.nan
    model.execute({manifest.inputs[0].name: rows}, ["malignant"])
    model.close()
    return "taken"


def main() -> None:
    """Go through all damaged copies."""
    runtime, artifact, columns, work = sys.argv[1], Path(sys.argv[2]).read_bytes(), int(sys.argv[3]), Path(sys.argv[4])
    # The libraries' own words are not looked at, and would fill the pipe.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    outcomes = Counter(
        outcome(runtime, copy, columns, work / str(index)) for index, copy in enumerate(damaged(artifact))
    )
    print(outcomes["refused"], outcomes["taken"])


if __name__ == "__main__":
    main()
