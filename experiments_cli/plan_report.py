"""A plan for people, and as JSON."""

from typing import Any, Final

from experiments import ExperimentError, parse_experiment
from experiments_cli.experiment_words import arms_words, change_lines, moved, share
from experiments_cli.plan import Action, Plan, Step
from experiments_cli.terminal import INDENT, Terminal

_MARKS: Final = {
    Action.CREATE: ("+", "green"),
    Action.CHANGE: ("~", "yellow"),
    Action.DELETE: ("-", "red"),
    Action.UNCHANGED: ("=", "dim"),
}


def print_plan(plan: Plan, terminal: Terminal) -> None:
    """Print every step with what changes, whom it moves and what there is to know; then the sums."""
    for step in plan.steps:
        mark, style = _MARKS[step.action]
        where = f"  ({step.source.path}:{step.source.line})" if step.source is not None else ""
        terminal.say(f"{mark} {step.name}: {step.action}{where}", style)
        if step.action is Action.UNCHANGED:
            continue
        for line in _lines(step):
            terminal.say(line, indent=INDENT)
        for warning in step.warnings:
            terminal.say(f"warning: {warning}", "yellow", indent=INDENT)
        for note in step.notes:
            terminal.say(f"note: {note}", indent=INDENT)
    for note in plan.notes:
        terminal.say(f"note: {note}", "yellow")
    terminal.say(summary(plan), "bold")


def summary(plan: Plan) -> str:
    """Return the plan in one line."""
    if not plan.changes:
        return f"Nothing to do: {len(plan.steps)} unchanged."
    counts = {action: sum(step.action is action for step in plan.steps) for action in Action}
    return (
        f"Plan: {counts[Action.CREATE]} to create, {counts[Action.CHANGE]} to change, "
        f"{counts[Action.DELETE]} to delete, {counts[Action.UNCHANGED]} unchanged."
    )


def plan_facts(plan: Plan) -> dict[str, Any]:
    """Return a plan for `--json`."""
    return {
        "changes": len(plan.changes),
        "steps": [
            {
                "experiment": step.name,
                "action": step.action.value,
                "file": str(step.source.path) if step.source is not None else None,
                "line": step.source.line if step.source is not None else None,
                "revision": step.revision,
                "epoch_before": step.epochs[0],
                "epoch_after": step.epochs[1],
                "units_moved_bp": step.units_moved_bp,
                "warnings": list(step.warnings),
                "notes": list(step.notes),
                "diff": [change.facts() for change in step.diff] if step.action is Action.CHANGE else [],
                "document": step.after,
            }
            for step in plan.steps
        ],
        "notes": list(plan.notes),
    }


def _lines(step: Step) -> list[str]:
    if step.action is Action.DELETE:
        assert step.before is not None
        return [f"it is {step.before.get('state', 'draft')}", moved(step.units_moved_bp)]
    if step.action is Action.CHANGE:
        before, after = step.epochs
        epoch = f"; epoch {before} → {after}" if before != after else ""
        return [*change_lines(step.diff), f"{moved(step.units_moved_bp)}{epoch}"]
    assert step.after is not None
    try:
        made = parse_experiment(step.after)
    except ExperimentError:  # a newer gateway has filled in what this program does not know
        return [moved(step.units_moved_bp)]
    state = f"{made.model} by {made.unit}, {made.state}, enrolment {share(made.enrol_bp)}"
    return [state, arms_words(made), moved(step.units_moved_bp)]
