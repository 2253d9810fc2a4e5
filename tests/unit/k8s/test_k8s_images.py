"""Each deployable has an image that installs what is locked, runs unprivileged and starts a program that exists."""

import re
from fnmatch import fnmatch

import pytest

from tests.unit.k8s.deployment_files import GUIDE, PYPROJECT, ROOT, dockerfiles, program, workloads

on_every_image = pytest.mark.parametrize("image", dockerfiles(), ids=lambda image: image.image)

PINNED = re.compile(r"^([a-z0-9][a-z0-9-]*)(?:\[[a-z0-9,-]+\])?==\S+", re.MULTILINE)


def copied_from_context(image) -> list[str]:
    return [value.split()[0] for value in image.values("COPY") if not value.startswith("--from=")]


def required(requirements: list[str]) -> set[str]:
    """The distributions that requirements name, through this project's own extras."""
    names = set()
    for requirement in requirements:
        nested = re.match(r"sekisho\[([a-z-]+)\]", requirement)
        if nested:
            names |= required(PYPROJECT["project"]["optional-dependencies"][nested[1]])
        else:
            names.add(re.match(r"[A-Za-z0-9-]+", requirement)[0].lower())
    return names


def lock_of(image) -> str:
    return (ROOT / "locks" / f"{image.image.removeprefix('sekisho-')}.txt").read_text()


def test_there_is_one_image_for_each_deployable():
    assert [d.image for d in dockerfiles()] == [
        "sekisho-analysis",
        "sekisho-gateway",
        "sekisho-worker-lightgbm",
        "sekisho-worker-onnx",
    ]


def test_every_image_that_a_workload_runs_has_a_dockerfile():
    assert {w.container["image"] for w in workloads()} <= {d.image for d in dockerfiles()}


@on_every_image
def test_an_image_starts_a_console_script_of_this_project(image):
    assert image.script in PYPROJECT["project"]["scripts"]


@pytest.mark.parametrize("image", [d for d in dockerfiles() if d.ports], ids=lambda image: image.image)
def test_an_image_exposes_the_programs_default_ports(image):
    assert image.ports == program(image.script).default_ports


def test_the_offline_image_listens_nowhere():
    assert [d.image for d in dockerfiles() if not d.ports] == ["sekisho-analysis"]


@on_every_image
def test_dependencies_come_from_the_images_own_lock_by_hash_and_the_wheel_brings_none(image):
    name = image.image.removeprefix("sekisho-")
    locked, wheel = [step for step in image.values("RUN") if step.startswith("pip ")]
    assert locked.endswith(f"--require-hashes --only-binary :all: -r /build/{name}.txt")
    assert "--no-index --no-deps /build/sekisho-${SEKISHO_VERSION}-py3-none-any.whl" in wheel
    assert f"locks/{name}.txt" in copied_from_context(image)


@on_every_image
def test_an_images_lock_pins_every_requirement_by_hash_and_names_no_registry(image):
    entries = lock_of(image).replace("\\\n", " ").splitlines()
    pinned = [entry for entry in entries if entry.strip() and not entry.lstrip().startswith("#")]
    assert pinned
    for entry in pinned:
        assert PINNED.match(entry), entry
        assert "--hash=sha256:" in entry, entry
        assert "://" not in entry


@on_every_image
def test_an_images_lock_holds_what_its_extra_asks_for(image):
    extra = PYPROJECT["project"]["optional-dependencies"][image.image.removeprefix("sekisho-")]
    asked_for = required([*PYPROJECT["project"]["dependencies"], *extra])
    assert asked_for <= set(PINNED.findall(lock_of(image)))


@on_every_image
def test_an_image_carries_the_release_of_this_project(image):
    assert image.values("ARG") == [f"SEKISHO_VERSION={PYPROJECT['project']['version']}"]


@on_every_image
def test_an_image_runs_as_the_numbered_user_that_the_pods_run_as(image):
    (user,) = image.values("USER")
    uids = {(w.pod["securityContext"]["runAsUser"], w.pod["securityContext"]["runAsGroup"]) for w in workloads()}
    assert {tuple(map(int, user.split(":")))} == uids


@on_every_image
def test_both_stages_start_from_one_python_by_name_and_tag_that_this_project_supports(image):
    build, runtime = image.values("FROM")
    assert build == f"{runtime} AS build"
    version = re.fullmatch(r"python:(\d\.\d+)-slim", runtime)[1]
    assert f"Programming Language :: Python :: {version}" in PYPROJECT["project"]["classifiers"]


def test_only_the_image_that_runs_lightgbm_installs_openmp():
    assert [d.image for d in dockerfiles() if any("libgomp1" in step for step in d.values("RUN"))] == [
        "sekisho-worker-lightgbm"
    ]


def test_the_image_that_runs_onnx_runtime_sends_its_maker_nothing():
    assert [d.image for d in dockerfiles() if "ORT_DISABLE_TELEMETRY=1" in d.values("ENV")] == ["sekisho-worker-onnx"]


@on_every_image
def test_the_build_context_lets_through_what_the_image_copies(image):
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    everything, *let_through = [line for line in lines if line and not line.startswith("#")]
    assert everything == "*"
    for path in copied_from_context(image):
        assert any(fnmatch(path, pattern.removeprefix("!")) for pattern in let_through), path


@on_every_image
def test_the_guide_names_every_image(image):
    assert f"`{image.image}`" in GUIDE.read_text()
