"""`models.yaml`: which models are served, by which versions and workers, and what happens when one fails."""

import re
from math import isfinite
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec

from contracts.manifest import TENSORS_MAX, Input, ManifestError, Name, Output, check_tensors
from settings.yaml_file import ConfigurationError, line_of, read_yaml

DEADLINE_MS_DEFAULT: Final = 100
DEADLINE_MS_MAX: Final = 60_000
BODY_BYTES_DEFAULT: Final = 1024 * 1024
BODY_BYTES_CEILING: Final = 64 * 1024 * 1024
INSTANCES_DEFAULT: Final = 1_000
INSTANCES_CEILING: Final = 100_000
MODELS_MAX: Final = 1_000
VERSIONS_MAX: Final = 100
WORKERS_MAX: Final = 256
BATCH_ROWS_CEILING: Final = 65_536
BATCH_ROWS_DEFAULT: Final = 64
"""Of a server whose limit nobody states: what most servers' examples are set to."""

_Identifier = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
_Reference = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}:[A-Za-z_][A-Za-z0-9_]{0,63}$")]


class ServerRoute(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How another server of the protocol knows a version, and whether it takes raw tensors."""

    model: Name | None = None
    """Its name there; left out: the model's own."""

    version: Name | msgspec.UnsetType | None = msgspec.UNSET
    """Its version there; left out: the route's own; null: the server's default, no version in the URL."""

    binary: bool | None = None
    """Whether the server has the binary tensor extension; left out: it is asked."""


class SignatureRoute(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a version takes and gives, where its server has no manifest to ask for. The fields are a manifest's."""

    inputs: Annotated[tuple[Input, ...], msgspec.Meta(min_length=1, max_length=TENSORS_MAX)]
    outputs: Annotated[tuple[Output, ...], msgspec.Meta(min_length=1, max_length=TENSORS_MAX)]
    batch_rows_max: Annotated[int, msgspec.Meta(ge=1, le=BATCH_ROWS_CEILING)] = BATCH_ROWS_DEFAULT


class VersionRoute(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where one version is served: base URLs of its workers, `http://host:port`.

    A host name stands for all its addresses. `https` workers are known by the name in their URL.
    """

    workers: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=WORKERS_MAX)]
    server: ServerRoute = ServerRoute()
    signature: SignatureRoute | None = None


class Fallback(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What answers where the drawn version cannot: another version, then a fixed value (of each output)."""

    version: Name | None = None
    value: float | dict[str, float] | None = None


class PayloadLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The largest request that the route takes."""

    body_bytes_max: Annotated[int, msgspec.Meta(ge=1, le=BODY_BYTES_CEILING)] = BODY_BYTES_DEFAULT
    instances_max: Annotated[int, msgspec.Meta(ge=1, le=INSTANCES_CEILING)] = INSTANCES_DEFAULT


class ModelRoute(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One model's route."""

    versions: Annotated[dict[Name, VersionRoute], msgspec.Meta(min_length=1, max_length=VERSIONS_MAX)]
    default_version: Name
    unit: _Identifier | None = None
    """The entity by which experiments split; a request may name another unit."""

    allow_missing_unit: bool = False
    """Answer a request without a unit from the default version, outside every experiment, instead of refusing it."""

    deadline_ms: Annotated[int, msgspec.Meta(ge=1, le=DEADLINE_MS_MAX)] = DEADLINE_MS_DEFAULT
    fallback: Fallback = Fallback()
    on_missing: dict[_Identifier, Literal["default", "fail"]] = {}
    """By feature view, where a row is missing: its declared defaults (the default), or a refusal."""

    request_overrides: tuple[_Reference, ...] = ()
    """Stored features (`view:feature`) whose value a request may replace."""

    attributes: tuple[_Identifier, ...] = ()
    """Request features that no version is fed, but that `where` expressions read."""

    allow_forced_variant: bool = False
    """Whether callers may choose the variant by header. Logged as forced, never counted in results."""

    limits: PayloadLimits = PayloadLimits()


class RoutesFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    models: Annotated[dict[Name, ModelRoute], msgspec.Meta(min_length=1, max_length=MODELS_MAX)]


class RouteFault(ValueError):
    """A route is wrong as a whole, though each part is of its type. Carries where (keys) and what was expected."""

    def __init__(self, keys: tuple[str | int, ...], problem: str) -> None:
        super().__init__(problem)
        self.keys, self.problem = keys, problem


def read_routes(path: Path) -> RoutesFile:
    """Read and check `models.yaml`. Raises ConfigurationError with file, line and what was expected."""
    routes = read_yaml(path, RoutesFile)
    for name, route in routes.models.items():
        try:
            check_route(route)
        except RouteFault as fault:
            raise ConfigurationError(path, line_of(path, "models", name, *fault.keys), fault.problem) from fault
    return routes


def check_route(route: ModelRoute) -> None:
    """Check what the types cannot say. Raises RouteFault."""
    if route.default_version not in route.versions:
        raise RouteFault(("default_version",), f"default_version {route.default_version!r} is not one of `versions`")
    if route.fallback.version is not None and route.fallback.version not in route.versions:
        problem = f"fallback version {route.fallback.version!r} is not one of `versions`"
        raise RouteFault(("fallback", "version"), problem)
    value = route.fallback.value
    if not all(map(isfinite, value.values() if isinstance(value, dict) else [value or 0.0])):
        raise RouteFault(("fallback", "value"), "a fallback value must be finite: JSON has no other numbers")
    for version, served in route.versions.items():
        try:
            check_version(served)
        except RouteFault as fault:
            raise RouteFault(("versions", version, *fault.keys), fault.problem) from fault


def check_version(route: VersionRoute) -> None:
    """Check what the types cannot say of one version's route. Raises RouteFault."""
    for index, url in enumerate(route.workers):
        if not _is_worker_url(url):
            problem = f"{url!r} is not a worker's URL: expected http://host:port or https://host:port"
            raise RouteFault(("workers", index), problem)
    if route.signature is not None:
        try:
            check_tensors(route.signature.inputs, route.signature.outputs)
        except ManifestError as error:
            raise RouteFault(("signature",), str(error)) from error


def _is_worker_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = not (parts.path.strip("/") or parts.query or parts.fragment or parts.username)
    known = parts.scheme in ("http", "https") and bool(parts.hostname) and bool(port)
    return known and plain and url.isprintable() and not re.search(r"\s", url)
