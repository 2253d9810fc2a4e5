"""What was changed at run time about one model's route: versions added, replaced or removed, another default.

An overlay lies over the route in `models.yaml` as that was when it was made, and knows its hash. Where the file says
something else of the model by now, the file wins and the overlay is void.
"""

import hashlib
from typing import Annotated, Final, Literal

import msgspec

from contracts.manifest import Name
from gateway.routes_file import VERSIONS_MAX, ModelRoute, RouteFault, VersionRoute, check_route

FORMAT: Final = 1


class OverlayError(ValueError):
    """A file holds no overlay; the message says why."""


class Overlay(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Changes to one model's route."""

    format: Literal[1] = 1
    route_sha256: str
    """Of the model's route in the file that this lies over."""

    default_version: Name | None = None
    versions: Annotated[dict[Name, VersionRoute], msgspec.Meta(max_length=VERSIONS_MAX)] = {}
    removed: Annotated[tuple[Name, ...], msgspec.Meta(max_length=VERSIONS_MAX)] = ()

    @property
    def is_empty(self) -> bool:
        """Whether it changes nothing."""
        return self.default_version is None and not self.versions and not self.removed


class _Format(msgspec.Struct):
    format: int


def overlay_file(model: str) -> str:
    """Name the file, relative to the state directory. The name is a checked one, safe in a path."""
    return f"routes/{model}.json"


def route_sha256(route: ModelRoute) -> str:
    """Hash a model's route as the file says it."""
    return hashlib.sha256(msgspec.json.encode(route)).hexdigest()


def overlaid(route: ModelRoute, overlay: Overlay | None) -> ModelRoute:
    """Lay an overlay over the file's route. Raises RouteFault where the result is no route."""
    if overlay is None or overlay.is_empty:
        return route
    versions = {v: r for v, r in (route.versions | overlay.versions).items() if v not in overlay.removed}
    if len(versions) > VERSIONS_MAX:
        raise RouteFault(("versions",), f"{len(versions)} versions; a model has at most {VERSIONS_MAX}")
    default = overlay.default_version or route.default_version
    merged = msgspec.structs.replace(route, versions=versions, default_version=default)
    check_route(merged)
    return merged


def with_version(overlay: Overlay, file_route: ModelRoute, version: str, route: VersionRoute) -> Overlay:
    """Add or replace a version."""
    versions = {v: r for v, r in overlay.versions.items() if v != version}
    if file_route.versions.get(version) != route:
        versions[version] = route
    removed = tuple(v for v in overlay.removed if v != version)
    return msgspec.structs.replace(overlay, versions=versions, removed=removed)


def without_version(overlay: Overlay, file_route: ModelRoute, version: str) -> Overlay:
    """Remove a version."""
    versions = {v: r for v, r in overlay.versions.items() if v != version}
    removed = tuple(v for v in overlay.removed if v != version)
    if version in file_route.versions:
        removed = (*removed, version)
    return msgspec.structs.replace(overlay, versions=versions, removed=removed)


def with_default(overlay: Overlay, file_route: ModelRoute, version: str) -> Overlay:
    """Make another version the default one."""
    default = None if version == file_route.default_version else version
    return msgspec.structs.replace(overlay, default_version=default)


def encode_overlay(overlay: Overlay) -> bytes:
    """Encode as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(overlay), indent=2) + b"\n"


def decode_overlay(data: bytes) -> Overlay:
    """Decode. Raises OverlayError."""
    try:
        known = msgspec.json.decode(data, type=_Format).format
        if known != FORMAT:
            raise OverlayError(f"format {known} is not known here; {FORMAT} is")
        return msgspec.json.decode(data, type=Overlay)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise OverlayError(f"no overlay: {error}") from error
