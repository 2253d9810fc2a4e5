"""The commands `results` and `plan --power` of `sekisho-experiments`: their options, and what they do."""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from analysis.errors import AnalysisError
from analysis.experiment_results.disagreement import SCORE_TOLERANCE, DisagreementRule
from analysis.experiment_results.plan_power import BASELINE_DAYS, Baseline, encode_plan, power_plan, read_baseline
from analysis.experiment_results.power_table import render_plan
from analysis.experiment_results.report import encode_results
from analysis.experiment_results.request import ResultsRequest
from analysis.experiment_results.results import experiment_results
from analysis.experiment_results.results_page import write_page
from analysis.experiment_results.results_table import render_results
from analysis.moment import read_moment
from analysis.whole_file import write_whole
from experiments.definition import parse_experiment
from experiments.errors import ExperimentError
from experiments.metrics import ALPHA, MDE_REL, POWER, WINDOW_S, Metric, parse_metric
from settings import CommandLine
from settings.command_line import whole_number

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
MISMATCH: Final = 4
"""The sample ratio fails: nothing else in the report is to be believed."""

STANDARD_OUTPUT: Final = "-"
ROWS_SERVED_MAX: Final = 10**15
DAYS_MAX: Final = 366
LARGEST: Final = 1e12

_LOG_HELP: Final = "the predictions root, or the directory that holds it as predictions/"
_OUTCOMES_HELP: Final = "the outcome log; outcomes/ beside predictions/ if not given"


def add_results_options(parser: CommandLine) -> None:
    """Add the options of `results`; the experiment's name and document are the program's own to get."""
    parser.set_defaults(error=parser.error)
    parser.option("--log", help=_LOG_HELP, required=True, type=Path, metavar="DIR")
    parser.option("--outcomes", help=_OUTCOMES_HELP, type=Path, metavar="DIR")
    from_help = "first time of the rows that count, RFC 3339 (UTC where it names no zone); the log's first if not given"
    parser.option("--from", help=from_help, type=read_moment, metavar="TIME")
    parser.option("--to", help="the time that ends them; the log's end if not given", type=read_moment, metavar="TIME")
    served_help = "rows of the model that were served in that time, to state which share of them the log lacks"
    parser.option("--rows-served", help=served_help, type=whole_number(1, ROWS_SERVED_MAX), metavar="N")
    threshold_help = "shadow pairs differ where one score reaches it and the other does not"
    parser.option("--decision-threshold", help=threshold_help, type=_number(-LARGEST, LARGEST), metavar="SCORE")
    tolerance_help = "or, without a threshold, where scores differ by more than this"
    parser.option(
        "--score-tolerance", help=tolerance_help, type=_number(0, LARGEST), default=SCORE_TOLERANCE, metavar="X"
    )
    despite_help = "show effects although units are missing from an arm (for finding out why, not for deciding)"
    parser.option("--show-despite-srm", help=despite_help, action="store_true")
    json_help = "write the report as JSON; - for standard output, in place of the table"
    parser.option("--json", help=json_help, metavar="FILE")
    parser.option("--html", help="write the report as one HTML page", type=Path, metavar="FILE")


def run_results(document: Mapping[str, Any], arguments: argparse.Namespace, console: Console) -> int:
    """Compute and show the results of the experiment that the document describes.

    Gives 0, 1 where it failed, 2 where the document is wrong, 4 where the sample ratio fails. Says on standard error
    what went wrong.
    """
    start, end = getattr(arguments, "from"), arguments.to
    if start is not None and end is not None and start >= end:
        arguments.error(f"--from {start.isoformat()} is not before --to {end.isoformat()}")
    request = ResultsRequest(
        start=start,
        end=end,
        outcomes_dir=arguments.outcomes,
        rows_served=arguments.rows_served,
        show_despite_srm=arguments.show_despite_srm,
        rule=DisagreementRule(arguments.decision_threshold, arguments.score_tolerance),
    )

    def run() -> int:
        results = experiment_results(document, arguments.log, request)
        if arguments.html is not None:
            write_page(results, arguments.html)
        if not _wrote_json(encode_results(results), arguments.json):
            console.print(render_results(results))
        return MISMATCH if results.sample_ratio.failed else DONE

    return _told(run)


def add_power_options(parser: CommandLine) -> None:
    """Add the options of `plan --power`."""
    parser.set_defaults(error=parser.error)
    parser.option("--log", help=f"read mean and deviation from a log: {_LOG_HELP}", type=Path, metavar="DIR")
    parser.option("--outcomes", help=_OUTCOMES_HELP, type=Path, metavar="DIR")
    parser.option("--model", help="whose log; the document's if there is one", metavar="NAME")
    parser.option("--metric", help="an outcome's name, or score, latency_ms, …; the document's primary", metavar="NAME")
    of_help = "what its sum is divided by: outcomes or units"
    parser.option("--of", help=of_help, choices=("per_outcome", "per_unit"))
    parser.option("--denominator", help="or the outcome that it is divided by", metavar="NAME")
    days_help = "how much of the log's end is read"
    parser.option("--days", help=days_help, type=whole_number(1, DAYS_MAX), default=BASELINE_DAYS, metavar="N")
    parser.option("--mean", help="or the metric's mean, by hand", type=_number(-LARGEST, LARGEST), metavar="X")
    parser.option("--sd", help="and its standard deviation over units", type=_number(0, LARGEST), metavar="X")
    parser.option("--mde-rel", help=_or_document("the relative effect to find", MDE_REL), type=_share(100), metavar="X")
    parser.option("--alpha", help=_or_document("chance of a false find", ALPHA), type=_share(0.5), metavar="X")
    parser.option("--power", help=_or_document("chance to find it", POWER), type=_share(0.9999), metavar="X")
    shares_help = "of the arms, control first, as 0.9 0.1; the document's, or halves"
    parser.option("--shares", help=shares_help, nargs="+", type=_share(1), metavar="X")
    rate_help = "new units that take part each day; read from the log if not given"
    parser.option("--units-per-day", help=rate_help, type=_number(1e-6, LARGEST), metavar="N")
    parser.option("--json", help="write the plan as JSON; - for standard output", metavar="FILE")


def plan_power(arguments: argparse.Namespace, console: Console, document: Mapping[str, Any] | None = None) -> int:
    """Say how many units an experiment takes, and how many days. Gives 0, 1 where it failed, 2 for a wrong document.

    document: what flags leave out comes from it, where there is one.
    """

    def run() -> int:
        plan = _plan(arguments, document)
        if not _wrote_json(encode_plan(plan), arguments.json):
            console.print(render_plan(plan))
        return DONE

    return _told(run)


def _plan(arguments: argparse.Namespace, document: Mapping[str, Any] | None) -> Any:
    experiment = None if document is None else parse_experiment(document)
    planned = None if experiment is None else experiment.metrics
    by_hand = arguments.mean is not None or arguments.sd is not None
    if by_hand == (arguments.log is not None):
        arguments.error("give either --log, or --mean and --sd")
    if by_hand and (arguments.mean is None or arguments.sd is None):
        arguments.error("--mean and --sd go together")
    metric = _metric(arguments, None if planned is None else planned.primary)
    if by_hand:
        baseline = Baseline(mean=arguments.mean, deviation=arguments.sd)
    else:
        model = arguments.model or (None if experiment is None else experiment.model)
        if model is None or metric is None:
            arguments.error("--log needs --model and --metric, or a document that names them")
        assert model is not None
        assert metric is not None
        baseline = read_baseline(
            arguments.log,
            model,
            metric,
            days=arguments.days,
            window_s=WINDOW_S if planned is None else planned.window_s,
            outcomes_dir=arguments.outcomes,
        )
    enrolled = 1.0 if experiment is None else experiment.enrol_bp / 10_000
    return power_plan(
        "metric" if metric is None else metric.name,
        baseline,
        mde_rel=_first(arguments.mde_rel, None if planned is None else planned.mde_rel, MDE_REL),
        alpha=_first(arguments.alpha, None if planned is None else planned.alpha, ALPHA),
        power=_first(arguments.power, None if planned is None else planned.power, POWER),
        arms=_arms(arguments, experiment),
        enrolled_share=1.0 if arguments.units_per_day is not None else enrolled,
        units_per_day=arguments.units_per_day,
    )


def _metric(arguments: argparse.Namespace, primary: Metric | None) -> Metric | None:
    if arguments.metric is None:
        return primary
    given = {"name": arguments.metric}
    if arguments.denominator is not None:
        given |= {"numerator": arguments.metric, "denominator": arguments.denominator}
    if arguments.of is not None:
        given["of"] = arguments.of
    try:
        return parse_metric(given, "--metric")
    except ExperimentError as error:
        arguments.error(str(error))
        raise


def _arms(arguments: argparse.Namespace, experiment: Any) -> dict[str, float]:
    if arguments.shares is not None:
        if len(arguments.shares) < 2 or sum(arguments.shares) > 1 + 1e-9:
            arguments.error("--shares: give at least two, of a sum of at most 1")
        names = ["control", *(f"treatment {n}" for n in range(1, len(arguments.shares)))]
        return dict(zip(names, arguments.shares, strict=True))
    if experiment is None:
        return {"control": 0.5, "treatment": 0.5}
    others = [variant for variant in experiment.variants if variant is not experiment.control and variant.bp]
    if not others or not experiment.control.bp:
        arguments.error("the document's control or treatment has no share of the split: give --shares")
    return {variant.name: variant.bp / 10_000 for variant in (experiment.control, *others)}


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _or_document(text: str, default: float) -> str:
    return f"{text}; the document's, or {default:g}"


def _wrote_json(encoded: bytes, target: str | None) -> bool:
    """Write JSON where it is wanted. Gives whether it took the place of the table."""
    if target == STANDARD_OUTPUT:
        sys.stdout.write(encoded.decode())
        return True
    if target is not None:
        write_whole(Path(target), encoded)
    return False


def _told(run: Callable[[], int]) -> int:
    """Run, and turn what may go wrong into one line on standard error and an exit code."""
    try:
        return run()
    except ExperimentError as error:
        print(f"sekisho-experiments: the experiment's document: {error}", file=sys.stderr)
        return USAGE
    except (AnalysisError, OSError) as error:
        print(f"sekisho-experiments: {error}", file=sys.stderr)
        return FAILED


def _share(maximum: float) -> Callable[[str], float]:
    return _number(1e-9, maximum)


def _number(minimum: float, maximum: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not minimum <= number <= maximum:
            raise argparse.ArgumentTypeError(f"{text!r}: give a number from {minimum:g} to {maximum:g}")
        return number

    return read
