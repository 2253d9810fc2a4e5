import hashlib
import os
import socket
from contextlib import closing
from pathlib import Path

import pytest

from model_workers.errors import FileChanged, RepositoryError
from model_workers.loading import load_version
from model_workers.repository import VersionDirectory
from model_workers.runtimes import lightgbm, onnx
from model_workers.version_files import hash_file, read_file
from tests.unit.model_workers.fake_parts import HandClock
from tests.unit.model_workers.published_models import lightgbm_manifest, onnx_manifest, publish

LIMIT_BYTES = 1 << 22


def pipe(path):
    os.mkfifo(path)


def endless_device(path):
    path.symlink_to("/dev/zero")


def folder(path):
    path.mkdir()


def listening_socket(path):
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(path))


NO_FILES = [pipe, endless_device, folder, listening_socket]


@pytest.fixture
def short_folder(tmp_path, monkeypatch):
    """Stand in the folder, for the path of a socket must be short."""
    monkeypatch.chdir(tmp_path)
    return tmp_path.relative_to(tmp_path)


@pytest.mark.parametrize("read", [read_file, hash_file])
@pytest.mark.parametrize("make", NO_FILES)
def test_what_is_no_regular_file_is_refused_by_its_path(short_folder, make, read):
    path = short_folder / "model.onnx"
    make(path)
    with pytest.raises(RepositoryError, match=r"^model\.onnx: is no regular file$"):
        read(path, LIMIT_BYTES)


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_a_file_is_read_and_hashed_whole(tmp_path, size):
    path, content = tmp_path / "model.onnx", os.urandom(size)
    path.write_bytes(content)
    read_stamp, data = read_file(path, LIMIT_BYTES)
    hash_stamp, digest = hash_file(path, LIMIT_BYTES)
    assert (data, digest) == (content, hashlib.sha256(content).hexdigest())
    assert read_stamp == hash_stamp


@pytest.mark.parametrize("read", [read_file, hash_file])
def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, growing, read):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"artifact")
    growing(path)
    with pytest.raises(FileChanged, match=r"model\.onnx: changed while it was read"):
        read(path, LIMIT_BYTES)


@pytest.mark.parametrize("read", [read_file, hash_file])
def test_a_file_beyond_the_limit_is_refused_unread(tmp_path, read):
    path = tmp_path / "model.onnx"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(RepositoryError, match="has more than 4194304 bytes"):
        read(path, LIMIT_BYTES)


def open_descriptors():
    return len([*Path("/proc/self/fd").iterdir()])


def test_no_descriptor_is_left_open(tmp_path):
    (tmp_path / "file").write_bytes(b"artifact")
    pipe(tmp_path / "pipe")
    before = open_descriptors()
    read_file(tmp_path / "file", LIMIT_BYTES)
    with pytest.raises(RepositoryError):
        read_file(tmp_path / "pipe", LIMIT_BYTES)
    assert open_descriptors() == before


@pytest.mark.parametrize("make", [pipe, endless_device])
@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "warm-up.json"])
def test_a_version_of_which_any_file_is_no_regular_one_is_refused(tmp_path, make, name):
    path = publish(tmp_path, b"artifact", onnx_manifest("churn", "1", 2, warm_up="warm-up.json"))
    (path / name).unlink(missing_ok=True)
    make(path / name)
    with pytest.raises(RepositoryError, match=f"{name}: is no regular file"):
        load_version(VersionDirectory("churn", "1", path), HandClock())


@pytest.mark.parametrize("make", [pipe, endless_device])
@pytest.mark.parametrize(("runtime", "declare"), [(onnx, onnx_manifest), (lightgbm, lightgbm_manifest)])
def test_a_runtime_refuses_an_artifact_that_is_replaced_by_no_regular_file_after_its_hash(
    tmp_path, make, runtime, declare
):
    manifest = declare("churn", "1", 2)
    make(tmp_path / manifest.artifact.file)
    with pytest.raises(RepositoryError, match="is no regular file"):
        runtime.load(tmp_path, manifest)
