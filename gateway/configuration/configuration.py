"""What a gateway is to serve: routes and experiments from files, with what was changed at run time laid over them."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from experiments import Experiment
from gateway.configuration.experiments_file import experiment_files, read_experiments
from gateway.configuration.kept_files import keep_files, kept_files
from gateway.configuration.last_good import StateDirectory, ignored
from gateway.configuration.route_overlay import (
    Overlay,
    OverlayError,
    decode_overlay,
    overlaid,
    overlay_file,
    route_sha256,
)
from gateway.routes_file import ModelRoute, RouteFault, read_routes
from settings import ConfigurationError
from settings.followed_files import Stamp, stamp_of

REVISION_DIGITS: Final = 12
"""Hexadecimal ones, 48 bits: exact as a number of a metric."""

logger = logging.getLogger(__name__)

Stamps = tuple[tuple[Path, Stamp], ...]
"""Of every file that was read, or would be if it were there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A whole, checked configuration."""

    file_routes: Mapping[str, ModelRoute]
    """As `models.yaml` says it."""

    overlays: Mapping[str, Overlay]
    """By model: what was changed at run time and still holds."""

    routes: Mapping[str, ModelRoute]
    """Both together: what is to be served."""

    experiments: Mapping[str, tuple[Experiment, ...]]
    outdated: frozenset[str] = frozenset()
    """Models whose overlay is void, because the file says something else of them by now."""

    @property
    def revision(self) -> str:
        """Name what is to be served: equal where it is equal, in any process and after any restart."""
        documents = {e.name: [e.revision, e.document] for found in self.experiments.values() for e in found}
        routes = msgspec.json.encode(self.routes, order="deterministic")
        told = json.dumps(documents, sort_keys=True, default=str).encode()
        return hashlib.sha256(routes + b"\0" + told).hexdigest()[:REVISION_DIGITS]

    def overlay_of(self, model: str) -> Overlay:
        """Return a model's overlay; an empty one where nothing was changed."""
        found = self.overlays.get(model)
        return Overlay(route_sha256=route_sha256(self.file_routes[model])) if found is None else found

    def with_overlay(self, model: str, overlay: Overlay) -> "Configuration":
        """Return this with another overlay of one model. Raises RouteFault where the result is no route."""
        route = overlaid(self.file_routes[model], overlay)
        overlays = {name: found for name, found in self.overlays.items() if name != model}
        if not overlay.is_empty:
            overlays[model] = overlay
        return replace(self, overlays=overlays, routes={**self.routes, model: route})


class ConfigurationFiles:
    """Where configurations come from. Its methods block."""

    def __init__(self, config: Path, experiments: Path | None, state: StateDirectory) -> None:
        self.config, self._experiments, self._state = config, experiments, state

    def read_or_last_good(self) -> Configuration:
        """Read everything; where something is wrong, what was kept of the files when they were last good.

        For a process that takes another's place: what it served must not go because a file is wrong just now. Raises
        ConfigurationError where nothing was kept.
        """
        try:
            found = self.read()
        except ConfigurationError as error:
            config, experiments = kept_files(self._state, with_experiments=self._experiments is not None)
            try:
                last_good = ConfigurationFiles(config, experiments, self._state).read()
            except ConfigurationError:
                raise error from None
            logger.error(  # noqa: TRY400 - the reason says all
                "the configuration's files are refused; the last good ones are read", extra={"reason": str(error)}
            )
            return last_good
        self.keep()
        return found

    def keep(self) -> None:
        """Keep a copy of the files, which have just been read. What cannot be kept is logged."""
        keep_files(self._state, self.config, experiment_files(self._experiments))

    def read(self) -> Configuration:
        """Read everything. Raises ConfigurationError with file and line.

        An overlay that is void, or a file that holds none, is passed over.
        """
        file_routes = read_routes(self.config).models
        overlays: dict[str, Overlay] = {}
        routes: dict[str, ModelRoute] = {}
        outdated: set[str] = set()
        for model, route in file_routes.items():
            routes[model] = route
            overlay = self._overlay(model)
            if overlay is None:
                continue
            if overlay.route_sha256 != route_sha256(route):
                outdated.add(model)
                continue
            try:
                routes[model] = overlaid(route, overlay)
            except RouteFault as fault:
                ignored(self._state.path_of(overlay_file(model)), str(fault))
            else:
                overlays[model] = overlay
        return Configuration(
            file_routes=file_routes,
            overlays=overlays,
            routes=routes,
            experiments=read_experiments(self._experiments, routes),
            outdated=frozenset(outdated),
        )

    def stamps(self, models: Mapping[str, ModelRoute]) -> Stamps:
        """Say what changes when a file does. models: those whose overlays are looked at. Raises ConfigurationError."""
        overlays = [self._state.path_of(overlay_file(model)) for model in models]
        return tuple((path, stamp_of(path)) for path in (self.config, *experiment_files(self._experiments), *overlays))

    def _overlay(self, model: str) -> Overlay | None:
        stored = self._state.read(overlay_file(model))
        if stored is None:
            return None
        try:
            return decode_overlay(stored.data)
        except OverlayError as error:
            ignored(self._state.path_of(overlay_file(model)), str(error))
            return None
