"""Versions added, replaced, removed and made the default while the gateway serves."""

import asyncio
import re
from collections.abc import Callable
from typing import Final

import msgspec

from contracts.manifest import NAME_PATTERN
from experiments import State
from gateway.configuration.catalogue import Catalogue
from gateway.configuration.configuration import Configuration
from gateway.configuration.last_good import StateNotWritten
from gateway.configuration.live_configuration import LiveConfiguration
from gateway.configuration.route_overlay import Overlay, with_default, with_version, without_version
from gateway.errors import ChangeNotKept, InvalidRequest, UnknownModel, UnknownVersion, VersionInUse, VersionNotReady
from gateway.routes_file import ModelRoute, RouteFault, VersionRoute, check_version

READY_WAIT_S: Final = 1.0
"""How long the answer to a new version waits for it to be ready: long enough to say so of most, short enough for a
caller's patience."""

_LOOK_S: Final = 0.02
_NAME: Final = re.compile(NAME_PATTERN)


class VersionState(msgspec.Struct, frozen=True):
    """What a change has led to."""

    model: str
    version: str
    ready: bool
    """Whether the version can answer, as it is wanted now."""

    problem: str | None
    """Why it cannot yet."""


class VersionChanges:
    """Changes what is served, as a whole or not at all."""

    def __init__(self, configuration: LiveConfiguration, catalogue: Catalogue) -> None:
        self._configuration, self._catalogue = configuration, catalogue

    async def put(self, model: str, version: str, route: VersionRoute, *, dry_run: bool) -> tuple[VersionState, bool]:
        """Add a version or replace it. The second result tells whether it is new.

        One that is replaced answers until the other can. Raises UnknownModel, InvalidRequest, ChangeNotKept.
        """
        if not _NAME.fullmatch(version):
            raise InvalidRequest("a version's name is 1 to 128 letters, digits, `_`, `.` and `-`", "version")
        try:
            check_version(route)
        except RouteFault as fault:
            raise InvalidRequest(fault.problem, ".".join(map(str, fault.keys))) from None
        added = False

        def changed(now: Configuration) -> Overlay:
            nonlocal added
            added = version not in _route(now, model).versions
            return with_version(now.overlay_of(model), now.file_routes[model], version, route)

        await self._change(model, changed, dry_run=dry_run)
        if not dry_run:
            await self._wait(model, version)
        return self._state(model, version), added

    async def delete(self, model: str, version: str, *, dry_run: bool) -> VersionState:
        """Remove a version: it is given nothing more, answers what it has, and is let go.

        Raises UnknownModel, UnknownVersion, ChangeNotKept, and VersionInUse where requests are sent to it.
        """

        def changed(now: Configuration) -> Overlay:
            _known(now, model, version)
            if uses := _uses(now, model, version):
                raise VersionInUse(f"{model}@{version} is {' and '.join(uses)}")
            return without_version(now.overlay_of(model), now.file_routes[model], version)

        await self._change(model, changed, dry_run=dry_run)
        return VersionState(model, version, False, "it is removed" if not dry_run else "it would be removed")

    async def set_default(self, model: str, version: str, *, dry_run: bool) -> VersionState:
        """Make a version the default one, between two requests.

        Raises UnknownModel, UnknownVersion, ChangeNotKept, and VersionNotReady where it cannot answer.
        """

        def changed(now: Configuration) -> Overlay:
            _known(now, model, version)
            state = self._state(model, version)
            if not state.ready:
                raise VersionNotReady(f"{model}@{version}: {state.problem}")
            return with_default(now.overlay_of(model), now.file_routes[model], version)

        await self._change(model, changed, dry_run=dry_run)
        return self._state(model, version)

    async def _change(self, model: str, changed: Callable[[Configuration], Overlay], *, dry_run: bool) -> None:
        try:
            await self._configuration.change(model, changed, dry_run=dry_run)
        except RouteFault as fault:
            raise InvalidRequest(fault.problem, ".".join(map(str, fault.keys))) from None
        except StateNotWritten as error:
            raise ChangeNotKept(f"nothing was changed, for it would be lost with this process: {error}") from None

    async def _wait(self, model: str, version: str) -> None:
        for _ in range(int(READY_WAIT_S / _LOOK_S)):
            if self._state(model, version).ready:
                break
            await asyncio.sleep(_LOOK_S)
        self._catalogue.settle()

    def _state(self, model: str, version: str) -> VersionState:
        keeper = self._catalogue.keeper(model, version)
        if keeper is None:
            return VersionState(model, version, False, "it is not served yet")
        return VersionState(model, version, keeper.ready, keeper.served.reason)


def _route(now: Configuration, model: str) -> ModelRoute:
    route = now.routes.get(model)
    if route is None:
        raise UnknownModel(f"no model {model[:64]!r} is served here; there are: {', '.join(sorted(now.routes))}")
    return route


def _known(now: Configuration, model: str, version: str) -> None:
    versions = _route(now, model).versions
    if version not in versions:
        raise UnknownVersion(f"{model} has no version {version[:64]!r}; it has: {', '.join(versions)}")


def _uses(now: Configuration, model: str, version: str) -> list[str]:
    """Say what sends requests to a version without naming it."""
    route = now.routes[model]
    uses = ["the default version"] if route.default_version == version else []
    if route.fallback.version == version:
        uses.append("the fallback version")
    running = [e for e in now.experiments.get(model, ()) if e.state is State.RUNNING]
    uses += [f"drawn by the experiment {e.name!r}" for e in running if any(v.version == version for v in e.variants)]
    return uses
