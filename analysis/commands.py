"""What each command of `sekisho-analysis` does with its arguments."""

import argparse
import sys
from datetime import UTC
from pathlib import Path

from rich.console import Console

from analysis.compare import compare
from analysis.data_files import open_data
from analysis.drift_report import DriftReport, Thresholds, encode_report
from analysis.html_report import write_html
from analysis.profile import Profile, encode_profile, read_profile
from analysis.profile_log import profile_log
from analysis.profiling import make_profile
from analysis.prometheus_text import prometheus_text
from analysis.terminal_table import render_table
from analysis.whole_file import write_whole

DONE = 0
FAILED = 1
DRIFT = 3

STANDARD_OUTPUT = "-"


def profile(arguments: argparse.Namespace, console: Console) -> int:
    """Make a baseline profile of training data, or of a prediction log."""
    made = _profile_of(arguments)
    path: Path = arguments.output
    write_whole(path, encode_profile(made))
    outputs = {score.column.name for score in made.scores}
    counted = f"{made.rows:,} rows, {len(made.features)} features, {len(outputs)} scores"
    # Times as the rows have them: it is how a mistaken window shows.
    window = f", {made.start.astimezone(UTC)} to {made.end.astimezone(UTC)}" if made.start and made.end else ""
    console.print(f"{path}: {counted}{window}")
    console.print(f"fingerprint {made.fingerprint}")
    return DONE


def drift(arguments: argparse.Namespace, console: Console) -> int:
    """Compare a window of the prediction log with a profile, or with an earlier window. Exits with 3 on drift."""
    _check_usage(arguments)
    baseline, *others = _baselines(arguments)
    report = compare(
        baseline,
        arguments.log,
        arguments.model,
        version=arguments.version,
        start=getattr(arguments, "from"),
        end=arguments.to,
        by_variant=arguments.by == "variant",
        include_shadow=arguments.include_shadow,
        thresholds=Thresholds(psi=arguments.threshold_psi, share=arguments.threshold_share),
        rows_served=arguments.rows_served,
        score_profiles=others,
    )
    _write(report, arguments, console)
    return DRIFT if report.outcome == "drift" else DONE


def _profile_of(arguments: argparse.Namespace) -> Profile:
    bins, categories_max = arguments.bins, arguments.categories_max
    data = Path(arguments.data)
    if data.is_dir():
        return profile_log(data, arguments.model, version=arguments.version, bins=bins, categories_max=categories_max)
    return make_profile(
        open_data(arguments.data),
        model=arguments.model,
        version=arguments.version or "",
        bins=bins,
        categories_max=categories_max,
    )


def _check_usage(arguments: argparse.Namespace) -> None:
    referenced = arguments.reference_from is not None or arguments.reference_to is not None
    if bool(arguments.baseline) == referenced:
        arguments.error("give either --baseline, or --reference-from and --reference-to")
    if referenced and (arguments.reference_from is None or arguments.reference_to is None):
        arguments.error("a reference window needs both --reference-from and --reference-to")
    windows = (
        ("--from", getattr(arguments, "from"), "--to", arguments.to),
        ("--reference-from", arguments.reference_from, "--reference-to", arguments.reference_to),
    )
    for start_flag, start, end_flag, end in windows:
        if start is not None and end is not None and start >= end:
            arguments.error(f"{start_flag} {start.isoformat()} is not before {end_flag} {end.isoformat()}")


def _baselines(arguments: argparse.Namespace) -> list[Profile]:
    if arguments.baseline:
        return [read_profile(path) for path in arguments.baseline]
    reference = profile_log(
        arguments.log,
        arguments.model,
        version=arguments.version,
        start=arguments.reference_from,
        end=arguments.reference_to,
        include_shadow=arguments.include_shadow,
    )
    return [reference]


def _write(report: DriftReport, arguments: argparse.Namespace, console: Console) -> None:
    if arguments.html is not None:
        write_html(report, arguments.html)
    if arguments.prometheus is not None:
        write_whole(arguments.prometheus, prometheus_text(report).encode())
    if arguments.json == STANDARD_OUTPUT:
        sys.stdout.write(encode_report(report).decode())
        return
    if arguments.json is not None:
        write_whole(Path(arguments.json), encode_report(report))
    console.print(render_table(report))
