import errno
import os
import re

import pytest

from contracts.manifest import FILE_NAME, MANIFEST_BYTES_MAX
from model_workers import repository
from model_workers.errors import ArtifactMismatch, RepositoryError, RepositoryUnreadable
from model_workers.repository import (
    Listing,
    VersionDirectory,
    files_stamp,
    read_version,
    refuse_changed,
    scan,
    select_versions,
)
from model_workers.version_policy import ModelNameError, version_order
from tests.unit.model_workers.published_models import onnx_manifest, publish


@pytest.fixture
def small_repository(tmp_path):
    for model, version in (("churn", "9"), ("churn", "10"), ("diagnosis", "1")):
        publish(tmp_path, b"artifact", onnx_manifest(model, version, 3))
    (tmp_path / ".git" / "1").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    return tmp_path


def selected(repository, *wanted):
    return [str(version) for version in select_versions(repository, wanted)]


def test_without_names_every_published_version_is_selected_and_nothing_else(small_repository):
    assert selected(small_repository) == ["churn@9", "churn@10", "diagnosis@1"]


def test_a_name_selects_all_versions_of_a_model_and_a_name_with_version_selects_one(small_repository):
    assert selected(small_repository, "churn") == ["churn@9", "churn@10"]
    assert selected(small_repository, "churn@10", "diagnosis") == ["churn@10", "diagnosis@1"]


def test_a_version_that_is_named_twice_is_selected_once(small_repository):
    assert selected(small_repository, "churn", "churn@9") == ["churn@9", "churn@10"]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("fraud", "has no model 'fraud'; it has churn, diagnosis"),
        ("churn@3", "'churn' has no version '3'; it has 9, 10"),
        ("../churn", "is no model: write NAME or NAME@VERSION"),
        ("churn@", "is no model: write NAME or NAME@VERSION"),
        ("churn@../9", "is no model: write NAME or NAME@VERSION"),
    ],
)
def test_an_unknown_name_is_refused_with_what_there_is(small_repository, wanted, said):
    with pytest.raises((RepositoryError, ModelNameError), match=re.escape(said)):
        select_versions(small_repository, [wanted])


def test_a_missing_repository_is_refused_with_what_to_give(tmp_path):
    with pytest.raises(RepositoryError, match="is not a directory; give --repository"):
        select_versions(tmp_path / "nowhere", [])


def test_an_empty_repository_is_refused_with_the_expected_layout(tmp_path):
    with pytest.raises(RepositoryError, match=r"NAME/VERSION/manifest\.json"):
        select_versions(tmp_path, [])


def test_a_published_version_is_read_with_its_document_byte_for_byte(small_repository):
    (directory,) = select_versions(small_repository, ["diagnosis"])
    published = read_version(directory)
    assert published.manifest.model == "diagnosis"
    assert published.document == (directory.path / FILE_NAME).read_bytes()


def test_an_artifact_with_one_changed_byte_is_refused(small_repository):
    (directory,) = select_versions(small_repository, ["diagnosis"])
    (directory.path / "model.onnx").write_bytes(b"artifacT")
    with pytest.raises(ArtifactMismatch) as refusal:
        read_version(directory)
    assert refusal.value.expected != refusal.value.found
    assert "publish a new one" in str(refusal.value)


def test_a_missing_artifact_is_refused_by_its_path(small_repository):
    (directory,) = select_versions(small_repository, ["diagnosis"])
    (directory.path / "model.onnx").unlink()
    with pytest.raises(RepositoryError, match=r"model\.onnx: the artifact cannot be read"):
        read_version(directory)


def test_a_manifest_that_names_another_folder_is_refused(small_repository):
    moved = small_repository / "diagnosis" / "2"
    (small_repository / "diagnosis" / "1").rename(moved)
    with pytest.raises(RepositoryError, match="names diagnosis@1, but lies in the folder of diagnosis@2"):
        read_version(VersionDirectory("diagnosis", "2", moved))


def test_a_manifest_that_is_no_json_is_refused_by_its_path(small_repository):
    (directory,) = select_versions(small_repository, ["diagnosis"])
    (directory.path / FILE_NAME).write_text("{")
    with pytest.raises(RepositoryError) as refusal:
        read_version(directory)
    assert str(refusal.value).startswith(f"{directory.path / FILE_NAME}: no valid manifest: ")
    assert str(refusal.value).count(FILE_NAME) == 1


def test_a_manifest_beyond_the_limit_is_told_by_the_limit(small_repository):
    (directory,) = select_versions(small_repository, ["diagnosis"])
    os.truncate(directory.path / FILE_NAME, MANIFEST_BYTES_MAX + 1)
    with pytest.raises(RepositoryError, match=r"manifest\.json: has more than 4194304 bytes"):
        read_version(directory)


def test_an_artifact_that_grows_while_it_is_hashed_is_refused(small_repository, growing):
    (directory,) = select_versions(small_repository, ["diagnosis"])
    growing(directory.path / "model.onnx")
    with pytest.raises(ArtifactMismatch, match="changed while it was read") as refusal:
        read_version(directory)
    assert refusal.value.found is None


@pytest.mark.parametrize(
    "in_order", [("9", "10"), ("v1.9", "v1.10"), ("1", "1.1"), ("beta", "1"), ("2026-09-30", "2026-10-01"), ("01", "1")]
)
def test_versions_are_ordered_as_a_reader_would(in_order):
    first, second = in_order
    assert version_order(first) < version_order(second)


def test_latest_selects_the_highest_versions_of_each_model(small_repository):
    chosen = select_versions(small_repository, [], latest=1)
    assert [str(version) for version in chosen] == ["churn@10", "diagnosis@1"]


def test_a_scan_lists_versions_in_natural_order_and_passes_over_what_is_none(small_repository):
    (small_repository / "churn" / ".draft-11").mkdir()
    (small_repository / "churn" / "12").mkdir()
    assert scan(small_repository).published == {"churn": ["9", "10"], "diagnosis": ["1"]}


def loop(path):
    path.symlink_to(path.name)


@pytest.mark.parametrize("name", ["fs", "fs/8", "churn/8"])
def test_a_link_that_leads_to_itself_is_passed_over_by_its_name_and_the_others_are_listed(small_repository, name):
    (small_repository / name).parent.mkdir(exist_ok=True)
    loop(small_repository / name)
    listing = scan(small_repository)
    assert listing.published == {"churn": ["9", "10"], "diagnosis": ["1"]}
    model, _, version = name.partition("/")
    ((key, problem),) = listing.unreadable.items()
    assert (key, "Too many levels of symbolic links" in problem) == ((model, version or None), True)


def test_a_manifest_that_is_a_link_to_itself_is_none(small_repository):
    (small_repository / "churn" / "8").mkdir()
    loop(small_repository / "churn" / "8" / FILE_NAME)
    assert scan(small_repository).published["churn"] == ["9", "10"]


def deny(monkeypatch, folder):
    """Let the listing of a folder fail, also for a user whom no permission stops."""
    scandir = os.scandir

    def denied(path):
        if path == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)


def test_a_model_whose_folder_cannot_be_listed_is_passed_over_and_the_others_are_listed(small_repository, monkeypatch):
    deny(monkeypatch, small_repository / "churn")
    listing = scan(small_repository)
    assert listing.published == {"diagnosis": ["1"]}
    assert listing.unreadable == {("churn", None): "cannot be looked into: Permission denied"}
    with pytest.raises(RepositoryError, match=r"/churn: cannot be looked into: Permission denied"):
        select_versions(small_repository, ["churn@9"])


def test_a_repository_whose_own_folder_cannot_be_listed_is_an_error(small_repository, monkeypatch):
    deny(monkeypatch, small_repository)
    with pytest.raises(RepositoryUnreadable, match="cannot be listed: Permission denied"):
        scan(small_repository)


def test_what_cannot_be_looked_into_now_is_as_it_was_last_seen():
    before = {"churn": ["9", "10"], "fraud": ["1"], "gone": ["1"]}
    listing = Listing({"churn": ["10", "11"]}, {("churn", "9"): "", ("fraud", None): "", ("new", "1"): ""})
    assert listing.with_last_seen(before) == {"churn": ["9", "10", "11"], "fraud": ["1"]}


def test_a_scan_of_more_folders_than_a_repository_has_is_refused(small_repository, monkeypatch):
    monkeypatch.setattr(repository, "FOLDERS_MAX", 2)
    with pytest.raises(RepositoryError, match="more than 2 folders"):
        scan(small_repository)


@pytest.mark.parametrize("file", ["model.onnx", FILE_NAME])
def test_a_file_that_is_replaced_after_it_was_read_is_told_although_its_bytes_are_the_same(small_repository, file):
    (directory,) = select_versions(small_repository, ["diagnosis"])
    published = read_version(directory)
    refuse_changed(published)
    path = directory.path / file
    other = path.with_name(".other")
    other.write_bytes(path.read_bytes())
    other.rename(path)
    with pytest.raises(ArtifactMismatch, match="changed while it was read") as refusal:
        refuse_changed(published)
    assert refusal.value.path == path


def test_a_file_that_vanishes_after_it_was_read_is_told(small_repository):
    (directory,) = select_versions(small_repository, ["diagnosis"])
    published = read_version(directory)
    (directory.path / "model.onnx").unlink()
    with pytest.raises(ArtifactMismatch):
        refuse_changed(published)


def test_the_stamp_of_a_folder_changes_with_its_files_and_a_missing_one_has_none(small_repository):
    (directory,) = select_versions(small_repository, ["diagnosis"])
    before = files_stamp(directory)
    assert files_stamp(directory) == before
    (directory.path / "model.onnx").write_bytes(b"another artifact")
    assert files_stamp(directory) != before
    assert files_stamp(VersionDirectory("diagnosis", "7", directory.path / "7")) == ()
