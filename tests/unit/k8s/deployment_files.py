"""The files of `k8s/` as data: manifests, workloads, Dockerfiles, and the programs that they start."""

import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
BASE = ROOT / "k8s" / "base"
IMAGES = ROOT / "k8s" / "images"
GUIDE = ROOT / "docs" / "deployment.md"
KUSTOMIZATION = yaml.safe_load((BASE / "kustomization.yaml").read_text())
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Program:
    """A console script: the flags that its --help lists, and the whole of that text in one line."""

    script: str
    module: str
    help: str

    @property
    def flags(self) -> set[str]:
        return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", self.help))

    def default_of(self, variable: str) -> str:
        return re.search(rf"\[{variable}; default ([^\]]+)\]", self.help)[1]

    @property
    def default_ports(self) -> set[int]:
        return {int(port) for port in re.findall(r"\[SEKISHO_(?:ADMIN_)?PORT; default (\d+)\]", self.help)}


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """One image's recipe, continuation lines joined."""

    image: str

    @property
    def instructions(self) -> list[tuple[str, str]]:
        text = (IMAGES / f"{self.image.removeprefix('sekisho-')}.Dockerfile").read_text().replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        return [(line.split()[0], " ".join(line.split()[1:])) for line in lines]

    def values(self, keyword: str) -> list[str]:
        return [value for name, value in self.instructions if name == keyword]

    @property
    def script(self) -> str:
        (entrypoint,) = self.values("ENTRYPOINT")
        (script,) = yaml.safe_load(entrypoint)
        return script

    @property
    def ports(self) -> set[int]:
        return {int(port) for value in self.values("EXPOSE") for port in value.split()}


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment and its one container."""

    document: Document

    @property
    def name(self) -> str:
        return self.document["metadata"]["name"]

    @property
    def selector(self) -> dict[str, str]:
        return self.document["spec"]["selector"]["matchLabels"]

    @property
    def labels(self) -> dict[str, str]:
        return self.document["spec"]["template"]["metadata"]["labels"]

    @property
    def pod(self) -> Document:
        return self.document["spec"]["template"]["spec"]

    @property
    def container(self) -> Document:
        (container,) = self.pod["containers"]
        return container

    @property
    def options(self) -> dict[str, str]:
        return dict(argument.split("=", 1) for argument in self.container["args"])

    @property
    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for port in self.container["ports"]}

    @property
    def image(self) -> Dockerfile:
        return Dockerfile(self.container["image"])

    @property
    def program(self) -> Program:
        return program(self.image.script)

    @property
    def mounts(self) -> dict[str, Document]:
        """What is mounted, by path: the mount and its volume in one."""
        volumes = {volume["name"]: volume for volume in self.pod["volumes"]}
        return {m["mountPath"]: {**volumes[m["name"]], **m} for m in self.container["volumeMounts"]}


def documents(kind: str | None = None) -> list[Document]:
    """Every document of the base's resources, or those of one kind."""
    found = [d for name in KUSTOMIZATION["resources"] for d in yaml.safe_load_all((BASE / name).read_text())]
    return [d for d in found if kind in {None, d["kind"]}]


def workloads() -> list[Workload]:
    return [Workload(document) for document in documents("Deployment")]


def workload_names() -> list[str]:
    return [workload.name for workload in workloads()]


def services_of(workload: Workload) -> list[Document]:
    return [s for s in documents("Service") if s["spec"]["selector"].items() <= workload.labels.items()]


def dockerfiles() -> list[Dockerfile]:
    return [Dockerfile(f"sekisho-{path.stem}") for path in sorted(IMAGES.glob("*.Dockerfile"))]


@cache
def program(script: str) -> Program:
    module = PYPROJECT["project"]["scripts"][script].partition(".__main__:")[0]
    shown = run_program(module, "--help")
    assert shown.returncode == 0, shown.stderr
    return Program(script, module, " ".join(shown.stdout.split()))


def run_program(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Wide, so that no flag is broken over two lines; without our variables, so that defaults are the program's own.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SEKISHO_")} | {"COLUMNS": "400"}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
