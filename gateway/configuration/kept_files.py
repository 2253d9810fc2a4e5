"""Copies of the configuration's files as they were when they were last good, in the state directory."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.configuration.last_good import StateDirectory, StateNotWritten

ROUTES: Final = "files/models.yaml"
EXPERIMENTS: Final = "files/experiments.yaml"
SEPARATOR: Final = b"\n---\n"

logger = logging.getLogger(__name__)


def keep_files(state: StateDirectory, config: Path, experiments: Sequence[Path]) -> None:
    """Copy the routes' file, and the experiments' files as one. What cannot be kept is logged."""
    try:
        _keep(state, ROUTES, config.read_bytes())
        if experiments:
            _keep(state, EXPERIMENTS, SEPARATOR.join(path.read_bytes() for path in experiments))
    except OSError as error:
        reason = str(error)
        kind = "a state file" if isinstance(error, StateNotWritten) else "a file that was read"
        logger.warning("the last good files are not kept", extra={"reason": f"{kind}: {reason}"})


def kept_files(state: StateDirectory, *, with_experiments: bool) -> tuple[Path, Path | None]:
    """Say where the copies are, if they are."""
    experiments = state.path_of(EXPERIMENTS)
    return state.path_of(ROUTES), experiments if with_experiments and experiments.exists() else None


def _keep(state: StateDirectory, name: str, data: bytes) -> None:
    found = state.read(name)
    if found is None or found.data != data:
        state.write(name, data)
