"""The model repository on disk: which versions there are, and whether each is what was published.

Layout: `REPO/{model}/{version}/manifest.json` beside the artifact that it names. Folder names are the truth that URLs
are made of, so a manifest which names another model or version is refused.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from contracts.manifest import (
    FILE_NAME,
    MANIFEST_BYTES_MAX,
    NAME_PATTERN,
    Manifest,
    ManifestError,
    decode_manifest,
)
from model_workers.errors import ArtifactMismatch, FileChanged, RepositoryError, RepositoryUnreadable
from model_workers.version_files import ARTIFACT_BYTES_MAX, FileStamp, hash_file, read_file, stamp_of
from model_workers.version_policy import VersionPolicy, read_policy, version_order

VERSIONS_MAX = 1_024
"""Versions that one worker serves at most; a tree with more is not a model repository, or needs `--model`."""

FOLDERS_MAX: Final = 65_536
"""Folders of models and versions that are listed at most."""

FILES_MAX: Final = 1_024
"""Files of one version that are looked at to tell whether it was changed."""

_NAME = re.compile(NAME_PATTERN)

Published = dict[str, list[str]]
"""Versions by model, as they lie in a repository, in natural order."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One look at a repository.

    unreadable: what was passed over because it could not be looked into, and why: a version, or a model as a whole,
        whose version is None.
    """

    published: Published
    unreadable: dict[tuple[str, str | None], str]

    def with_last_seen(self, before: Published) -> Published:
        """Return what is published, and of what cannot be looked into what was published before.

        A disk that fails for a moment must not look as if versions had been withdrawn.
        """
        published = {**self.published}
        for model, version in self.unreadable:
            last_seen = [seen for seen in before.get(model, []) if version in (None, seen)]
            if last_seen:
                published[model] = sorted({*published.get(model, []), *last_seen}, key=version_order)
        return published


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
    """A version whose manifest was read and whose artifact's hash was checked. `document` is manifest.json.

    stamps: of both files, each as it was before it was read.
    """

    path: Path
    manifest: Manifest
    document: bytes
    stamps: tuple[tuple[Path, FileStamp], ...]


def scan(repository: Path) -> Listing:
    """List what a repository holds. Slow on a slow disk; run it off the event loop.

    Raises RepositoryError where the repository is missing or holds too many folders, RepositoryUnreadable where it
    cannot be listed. What cannot be looked into below it is passed over: it must not take the others away.
    """
    try:
        if not repository.is_dir():
            raise RepositoryError(
                repository, "is not a directory; give --repository the folder that holds one folder a model"
            )
        models, problem_by_model = _folders(repository)
    except OSError as error:
        raise RepositoryUnreadable(repository, f"cannot be listed: {error.strerror}") from error
    published: Published = {}
    unreadable: dict[tuple[str, str | None], str] = {(model, None): said for model, said in problem_by_model.items()}
    left = FOLDERS_MAX
    for model in models:
        try:
            versions, problem_by_version = _versions(repository / model)
        except OSError as error:
            unreadable[model, None] = _words(error)
            continue
        unreadable |= {(model, version): said for version, said in problem_by_version.items()}
        left -= 1 + len(versions)
        if left < 0:
            raise RepositoryError(repository, f"holds more than {FOLDERS_MAX} folders of models and versions")
        if versions:
            published[model] = sorted(versions, key=version_order)
    return Listing(published, unreadable)


def select_versions(repository: Path, wanted: Sequence[str], latest: int | None = None) -> list[VersionDirectory]:
    """Find the versions that `wanted` names, as NAME or NAME@VERSION; nothing wanted means all of the repository.

    latest: of a model of which no version is named, only so many, the highest; None: all.
    Raises ModelNameError, and RepositoryError where the repository, a model or a version is missing, or there is
    nothing to serve.
    """
    policy = read_policy(wanted, latest)
    listing = scan(repository)
    published = listing.published
    _refuse_absent(repository, policy, listing)
    selected = [
        VersionDirectory(model, version, repository / model / version)
        for model in (dict.fromkeys(name for name, _ in policy.models) or published)
        for version in policy.select(model, published[model])
    ]
    if not selected:
        raise RepositoryError(repository, f"holds no version: none of the form NAME/VERSION/{FILE_NAME} was found")
    if len(selected) > VERSIONS_MAX:
        raise RepositoryError(
            repository,
            f"{len(selected)} versions are selected, at most {VERSIONS_MAX} can be; name some with --model, or give "
            "--latest",
        )
    return selected


def read_version(directory: VersionDirectory) -> PublishedVersion:
    """Read a version's manifest and check its artifact's hash.

    Raises RepositoryError where the manifest is missing, wrong or names another folder, and ArtifactMismatch where the
    artifact is not the published one.
    """
    path = directory.path / FILE_NAME
    manifest_stamp, document = _read_manifest(path)
    try:
        manifest = decode_manifest(document)
    except ManifestError as error:
        raise RepositoryError(path, str(error)) from error
    if (manifest.model, manifest.version) != (directory.model, directory.version):
        raise RepositoryError(path, f"names {manifest.model}@{manifest.version}, but lies in the folder of {directory}")
    artifact = directory.path / manifest.artifact.file
    artifact_stamp = _check_artifact(artifact, manifest.artifact.sha256)
    stamps = ((path, manifest_stamp), (artifact, artifact_stamp))
    return PublishedVersion(directory.path, manifest, document, stamps)


def refuse_changed(published: PublishedVersion) -> None:
    """Check once more, after a version was opened, that its files are those that were read and hashed.

    Raises ArtifactMismatch: what was opened may be something else.
    """
    for path, stamp in published.stamps:
        try:
            changed = stamp_of(path.stat()) != stamp
        except OSError:
            changed = True
        if changed:
            raise ArtifactMismatch(path, published.manifest.artifact.sha256, None)


def files_stamp(directory: VersionDirectory) -> tuple[tuple[str, FileStamp], ...]:
    """Note what files lie in a version's folder, so that a change of any can be told later. Never raises."""
    try:
        with os.scandir(directory.path) as entries:
            found = [entry.path for entry, _ in zip(entries, range(FILES_MAX), strict=False)]
        return tuple(sorted((path, stamp_of(Path(path).stat())) for path in found))
    except OSError:
        return ()


def _refuse_absent(repository: Path, policy: VersionPolicy, listing: Listing) -> None:
    published = listing.published
    for model, version in policy.models:
        for key in ((model, None), (model, version)):
            if key in listing.unreadable:
                raise RepositoryError(repository.joinpath(*filter(None, key)), listing.unreadable[key])
        if model not in published:
            raise RepositoryError(repository, f"has no model {model!r}; it has {', '.join(published) or 'none'}")
        if version is not None and version not in published[model]:
            raise RepositoryError(
                repository, f"{model!r} has no version {version!r}; it has {', '.join(published[model])}"
            )


def _folders(path: Path) -> tuple[list[str], dict[str, str]]:
    """List the folders whose names are ours, and say by its name why one cannot be told to be a folder."""
    # A name that is not one of ours (".git", "lost+found", a publisher's ".tmp-…") is no model and no version.
    found, unreadable = [], {}
    with os.scandir(path) as entries:
        for entry, _ in zip(entries, range(FOLDERS_MAX + 1), strict=False):
            if not _NAME.match(entry.name):
                continue
            try:
                if entry.is_dir():
                    found.append(entry.name)
            except OSError as error:
                unreadable[entry.name] = _words(error)
    return sorted(found), unreadable


def _versions(model: Path) -> tuple[list[str], dict[str, str]]:
    try:
        folders, unreadable = _folders(model)
    except (FileNotFoundError, NotADirectoryError):
        return [], {}  # it went away meanwhile
    versions = []
    for version in folders:
        try:
            if (model / version / FILE_NAME).is_file():
                versions.append(version)
        except OSError as error:
            unreadable[version] = _words(error)
    return versions, unreadable


def _words(error: OSError) -> str:
    return f"cannot be looked into: {error.strerror}"


def _read_manifest(path: Path) -> tuple[FileStamp, bytes]:
    try:
        return read_file(path, MANIFEST_BYTES_MAX)
    except OSError as error:
        raise RepositoryError(path, f"cannot be read: {error.strerror}") from error


def _check_artifact(path: Path, expected: str) -> FileStamp:
    try:
        stamp, found = hash_file(path, ARTIFACT_BYTES_MAX)
    except FileChanged as error:
        raise ArtifactMismatch(path, expected, None) from error
    except OSError as error:
        raise RepositoryError(path, f"the artifact cannot be read: {error.strerror}") from error
    if found != expected:
        raise ArtifactMismatch(path, expected, found)
    return stamp
