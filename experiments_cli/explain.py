"""`explain`: why one unit gets what it gets, experiment by experiment."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from experiments import Experiment, assign
from experiments.assignment import assign_one
from experiments_cli.admin_answers import Explanation, Serves, UnitDecision, parsed
from experiments_cli.connection import connect
from experiments_cli.document_files import read_documents
from experiments_cli.errors import OK
from experiments_cli.experiment_words import decision_words, reason_words
from experiments_cli.terminal import Terminal, plain


def explain(arguments: Namespace, terminal: Terminal) -> int:
    """Print every experiment's decision for one unit, bucket numbers and reason; and what each model serves."""
    if arguments.offline is not None:
        experiments = [file.experiment for file in read_documents(arguments.offline)]
        found = explained(experiments, arguments.unit, model=arguments.model, attributes=arguments.attributes)
        by_name = {experiment.name: experiment for experiment in experiments}
    else:
        api = connect(arguments)
        found = api.explain(arguments.unit, model=arguments.model, attributes=arguments.attributes)
        held = api.experiments() if found.decisions and not arguments.json else {}
        by_name = {name: read for name, one in held.items() if (read := parsed(name, one)) is not None}
    if arguments.json:
        terminal.write_json(_facts(found))
        return OK
    if not found.decisions:
        of = f" of model {arguments.model}" if arguments.model is not None else ""
        terminal.say(f"There are no experiments{of}: every unit gets the default version.")
        return OK
    columns = ("experiment", "model", "arm", "version", "counted", "why", "enrolment bucket", "split bucket")
    terminal.records(columns, [_row(decision, by_name.get(decision.experiment)) for decision in found.decisions])
    terminal.say()
    for model, serves in sorted(found.serves.items()):
        terminal.say(f"{model} serves {plain(arguments.unit)} {_serves_words(serves)}", "bold")
    if arguments.offline is not None:
        terminal.note(
            "offline: ramps, the kill switch and changes that the files do not have are not known here", "dim"
        )
    return OK


def explained(
    experiments: Sequence[Experiment], unit: str, *, model: str | None, attributes: Mapping[str, Any]
) -> Explanation:
    """Decide as a gateway would that has these experiments. The unit is an attribute too, under its kind."""
    decisions: list[UnitDecision] = []
    serves: dict[str, Serves] = {}
    by_model: dict[str, list[Experiment]] = {}
    for experiment in sorted(experiments, key=lambda e: e.name):
        if model in {None, experiment.model}:
            by_model.setdefault(experiment.model, []).append(experiment)
    for name, own in sorted(by_model.items()):
        known = {**{experiment.unit: unit for experiment in own}, **attributes}
        for experiment in own:
            decision = assign_one(experiment, unit, known)
            decisions.append(
                UnitDecision(
                    experiment=experiment.name,
                    model=name,
                    reason=decision.reason.value,
                    enrolled=decision.enrolled,
                    variant=decision.variant.name if decision.variant else None,
                    version=decision.variant.version if decision.variant else None,
                    enrol_bucket=decision.enrol_bucket,
                    split_bucket=decision.split_bucket,
                    revision=experiment.revision,
                    epoch=experiment.epoch,
                )
            )
        final = assign(own, unit, known)
        serves[name] = Serves(
            reason=final.reason.value,
            experiment=final.experiment.name if final.experiment is not None and final.variant is not None else None,
            variant=final.variant.name if final.variant else None,
            version=final.variant.version if final.variant else None,
        )
    return Explanation(unit=unit, decisions=tuple(decisions), serves=serves)


def _row(decision: UnitDecision, experiment: Experiment | None) -> list[str | Text]:
    return [
        decision.experiment,
        decision.model,
        Text(plain(decision.variant or "—"), style="bold" if decision.variant else "dim"),
        decision.version or "—",
        "yes" if decision.enrolled else "no",
        decision_words(decision, experiment),
        "" if decision.enrol_bucket is None else str(decision.enrol_bucket),
        "" if decision.split_bucket is None else str(decision.split_bucket),
    ]


def _serves_words(serves: Serves) -> str:
    if serves.variant is not None:
        return f"version {serves.version}: arm {serves.variant} of {serves.experiment} ({reason_words(serves.reason)})"
    version = f"version {serves.version}, its default" if serves.version is not None else "its default version"
    return f"{version} ({reason_words(serves.reason)})"


def _facts(found: Explanation) -> dict[str, Any]:
    return {
        "unit": found.unit,
        "decisions": [{f: getattr(d, f) for f in d.__struct_fields__} for d in found.decisions],
        "serves": {m: {f: getattr(s, f) for f in s.__struct_fields__} for m, s in found.serves.items()},
    }
