"""The files that an owner of such a system would keep in a repository: features, routes, the experiment."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.patients import MEASUREMENTS, VIEWS
from demo.served_model import MODEL

EXPERIMENT = "diagnosis-lightgbm"


@dataclass(frozen=True, slots=True)
class ConfigurationFiles:
    """Where they lie."""

    features: Path
    models: Path
    experiments: Path


def write_configuration(
    directory: Path, worker_ports: tuple[int, int], defaults: Sequence[float]
) -> ConfigurationFiles:
    """Write the three files. defaults (30,): what a patient without a row has."""
    directory.mkdir(parents=True, exist_ok=True)
    files = ConfigurationFiles(directory / "features.yaml", directory / "models.yaml", directory / "experiments.yaml")
    files.features.write_text(_features(defaults), encoding="utf-8")
    files.models.write_text(
        f"""\
models:
  {MODEL}:
    unit: patient
    deadline_ms: 500
    default_version: "1"
    versions:
      "1": {{workers: ["http://127.0.0.1:{worker_ports[0]}"]}}
      "2": {{workers: ["http://127.0.0.1:{worker_ports[1]}"]}}
    fallback: {{version: "1"}}
""",
        encoding="utf-8",
    )
    files.experiments.write_text(
        f"""\
experiment: {EXPERIMENT}
model: {MODEL}
unit: patient
state: running
hash: v1
salt: demo
variants:
  - {{name: control, version: "1", bp: 5000}}
  - {{name: treatment, version: "2", bp: 5000}}
metrics: {{primary: correct}}
""",
        encoding="utf-8",
    )
    return files


def _features(defaults: Sequence[float]) -> str:
    lines = ["feature_views:"]
    for index, view in enumerate(VIEWS):
        lines += [f"  {view}:", "    entity: patient", "    max_age: 30d", "    features:"]
        of_view = defaults[index * len(MEASUREMENTS) :]
        lines += [
            f"      - {{name: {measurement}, dtype: float32, default: {default:.6g}}}"
            for measurement, default in zip(MEASUREMENTS, of_view, strict=False)
        ]
    return "\n".join(lines) + "\n"
