"""The model repository on disk: which versions there are, and whether each is what was published.

Layout: `REPO/{model}/{version}/manifest.json` beside the artifact that it names. Folder names are the truth that URLs
are made of, so a manifest which names another model or version is refused.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from contracts.manifest import (
    FILE_NAME,
    MANIFEST_BYTES_MAX,
    NAME_PATTERN,
    Manifest,
    ManifestError,
    decode_manifest,
    sha256_of,
)
from model_workers.errors import ArtifactMismatch, RepositoryError

VERSIONS_MAX = 1_024
"""Versions that one worker selects at most; a tree with more is not a model repository, or needs `--model`."""

ARTIFACT_BYTES_MAX = 8 * 1024**3

_NAME = re.compile(NAME_PATTERN)
_DIGITS = re.compile(r"\d+|\D+")


@dataclass(frozen=True, slots=True)
class VersionDirectory:
    """A version as it lies on disk, named but not yet read."""

    model: str
    version: str
    path: Path

    def __str__(self) -> str:
        return f"{self.model}@{self.version}"


@dataclass(frozen=True, slots=True)
class PublishedVersion:
    """A version whose manifest was read and whose artifact's hash was checked. `document` is manifest.json."""

    path: Path
    manifest: Manifest
    document: bytes


def select_versions(repository: Path, wanted: Sequence[str]) -> list[VersionDirectory]:
    """Find the versions that `wanted` names, as NAME or NAME@VERSION; nothing wanted means all of the repository.

    Raises RepositoryError where the repository, a model or a version is missing, or there is nothing to serve.
    """
    if not repository.is_dir():
        raise RepositoryError(
            repository, "is not a directory; give --repository the folder that holds one folder a model"
        )
    selected = {str(v): v for name in wanted for v in _named(repository, name)} if wanted else {}
    if not wanted:
        selected = {str(v): v for model in _folders(repository) for v in _versions(repository, model)}
    if not selected:
        raise RepositoryError(repository, f"holds no version: none of the form NAME/VERSION/{FILE_NAME} was found")
    if len(selected) > VERSIONS_MAX:
        raise RepositoryError(
            repository, f"{len(selected)} versions are selected, at most {VERSIONS_MAX} can be; name some with --model"
        )
    return list(selected.values())


def read_version(directory: VersionDirectory) -> PublishedVersion:
    """Read a version's manifest and check its artifact's hash.

    Raises RepositoryError where the manifest is missing, wrong or names another folder, and ArtifactMismatch where the
    artifact is not the published one.
    """
    path = directory.path / FILE_NAME
    document = _read_manifest(path)
    try:
        manifest = decode_manifest(document)
    except ManifestError as error:
        raise RepositoryError(path, str(error)) from error
    if (manifest.model, manifest.version) != (directory.model, directory.version):
        raise RepositoryError(path, f"names {manifest.model}@{manifest.version}, but lies in the folder of {directory}")
    _check_artifact(directory.path / manifest.artifact.file, manifest.artifact.sha256)
    return PublishedVersion(directory.path, manifest, document)


def version_order(version: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sort key of natural order: 9 before 10, v1.9 before v1.10, and words before numbers."""
    parts = tuple((1, int(p), "") if p.isdigit() else (0, 0, p) for p in _DIGITS.findall(version))
    return parts, version


def _named(repository: Path, wanted: str) -> Iterable[VersionDirectory]:
    model, _, version = wanted.partition("@")
    if not _NAME.match(model) or ("@" in wanted and not _NAME.match(version)):
        raise RepositoryError(repository, f"{wanted!r} is no model: write NAME or NAME@VERSION")
    versions = list(_versions(repository, model))
    if not versions:
        raise RepositoryError(repository, f"has no model {model!r}; it has {', '.join(_folders(repository)) or 'none'}")
    if not version:
        return versions
    found = [v for v in versions if v.version == version]
    if not found:
        raise RepositoryError(
            repository, f"{model!r} has no version {version!r}; it has {', '.join(v.version for v in versions)}"
        )
    return found


def _versions(repository: Path, model: str) -> list[VersionDirectory]:
    versions = [v for v in _folders(repository / model) if (repository / model / v / FILE_NAME).is_file()]
    return [VersionDirectory(model, v, repository / model / v) for v in sorted(versions, key=version_order)]


def _folders(path: Path) -> list[str]:
    # A name that is not one of ours (".git", "lost+found", a publisher's ".tmp-…") is no model and no version.
    if not path.is_dir():
        return []
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and _NAME.match(entry.name))


def _read_manifest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MANIFEST_BYTES_MAX + 1)
    except OSError as error:
        raise RepositoryError(path, f"cannot be read: {error.strerror}") from error


def _check_artifact(path: Path, expected: str) -> None:
    try:
        size = path.stat().st_size
        if size > ARTIFACT_BYTES_MAX:
            raise RepositoryError(path, f"has {size} bytes, at most {ARTIFACT_BYTES_MAX} are loaded")
        found = sha256_of(path)
    except OSError as error:
        raise RepositoryError(path, f"the artifact cannot be read: {error.strerror}") from error
    if found != expected:
        raise ArtifactMismatch(path, expected, found)
