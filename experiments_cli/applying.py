"""Carrying out a plan: a step at a time, each only where nothing has changed since it was planned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from experiments_cli.admin_answers import Held
from experiments_cli.admin_api import AdminApi
from experiments_cli.errors import ChangedMeanwhile, CommandError, Refused
from experiments_cli.plan import Plan, Step
from experiments_cli.plan_check import fault_of, put_or_delete
from experiments_cli.terminal import plain
from settings.yaml_file import ConfigurationError


@dataclass(frozen=True, slots=True)
class Made:
    """A step that was made, and what the gateway answered."""

    step: Step
    held: Held


@dataclass(frozen=True, slots=True)
class Failed:
    """A step that was not made."""

    step: Step
    error: CommandError


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a plan. left: steps that were not tried, because the gateway answers nobody now."""

    made: Sequence[Made]
    failed: Sequence[Failed]
    left: Sequence[Step]

    @property
    def revision(self) -> int | None:
        """The last revision that was made; None where none was."""
        return max((made.held.revision for made in self.made), default=None)

    def facts(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {
            "applied": [
                {
                    "experiment": made.step.name,
                    "action": made.step.action.value,
                    "revision": made.held.revision,
                    "epoch": made.held.epoch,
                    "units_moved_bp": made.held.units_moved_bp,
                    "warnings": list(made.held.warnings),
                }
                for made in self.made
            ],
            "failed": [
                {"experiment": failed.step.name, **failed.error.facts(), **_place(failed)} for failed in self.failed
            ],
            "not_tried": [step.name for step in self.left],
        }


def carry_out(plan: Plan, api: AdminApi) -> Outcome:
    """Make every step that changes something. One that is refused leaves the others to be made.

    Experiments are documents of their own: what changed meanwhile of one says nothing against the rest, and a step that
    needed it is refused by the gateway as a conflict.
    """
    made: list[Made] = []
    failed: list[Failed] = []
    steps = list(plan.changes)
    for index, step in enumerate(steps):
        try:
            made.append(Made(step, put_or_delete(step, api, dry_run=False)))
        except (ChangedMeanwhile, Refused) as error:
            failed.append(Failed(step, error))
            if isinstance(error, Refused) and error.status != 422:
                return Outcome(made, failed, steps[index + 1 :])
        except CommandError as error:
            failed.append(Failed(step, error))
            return Outcome(made, failed, steps[index + 1 :])
    return Outcome(made, failed, [])


def failure_words(failed: Failed) -> str:
    """Say why a step was not made: with file and line, where a key of a file is at fault."""
    fault = _fault(failed)
    return str(failed.error) if fault is None else plain(str(fault))


def _fault(failed: Failed) -> ConfigurationError | None:
    step, error = failed.step, failed.error
    if not isinstance(error, Refused) or error.status != 422 or step.source is None:
        return None
    return fault_of(step, error)


def _place(failed: Failed) -> dict[str, Any]:
    fault = _fault(failed)
    return {} if fault is None else {"file": str(fault.path), "line": fault.line}
