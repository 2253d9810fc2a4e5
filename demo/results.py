"""What an owner wants to see: requests and latency, the split, accuracy by variant, drift, where to look next."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from analysis import DriftReport, VariantOutcome, render_table
from demo.patients import SHIFT, SHIFTED
from demo.served_model import MODEL
from demo.traffic import Answer

CONFIGURED_SHARES: Final = {"control": 0.5, "treatment": 0.5}
SPLIT_CONFIDENCE: Final = 0.999


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Everything that the run found out."""

    answers: Sequence[Answer]
    refused: Sequence[str]
    outcomes_before: Sequence[VariantOutcome]
    outcomes_after: Sequence[VariantOutcome]
    """Share of right calls by variant, in either half."""

    before: DriftReport
    """The first half of the traffic against the training data."""

    after: DriftReport
    """The second half, after the shift."""

    report: Path
    rows_dropped: int


def print_results(console: Console, results: Results) -> None:
    """Print the results, a section each."""
    _requests(console, results)
    _split(console, results.answers)
    _accuracy(console, results)
    console.rule("[bold]Drift: first half of the traffic, as trained")
    drifted = [column.name for column in results.before.columns if column.verdict == "drift"]
    found = ", ".join(drifted) if drifted else "no drift"
    console.print(f"{found} in {results.before.window.rows} rows, compared with the training data")
    console.rule("[bold]Drift: second half, after the shift")
    wrong = ", ".join(SHIFTED)
    console.print(f"From here on {wrong} came from a microscope set {SHIFT - 1:.0%} too large; nobody told the models.")
    console.print(render_table(results.after))
    console.print(f"Report with histograms: {results.report}", soft_wrap=True)


def print_invitation(console: Console, port: int, admin_port: int, log_directory: Path, *, ends_now: bool) -> None:
    """Say what to try while the system serves. ends_now: it is about to end, so it has to be started again for it."""
    console.rule("[bold]Try it, once `make demo` serves" if ends_now else "[bold]Try it")
    body = '{"entities": {"patient": "p0"}}'
    lines = [
        f"curl -s http://127.0.0.1:{port}/v1/models/{MODEL}:predict -H 'content-type: application/json' -d '{body}'",
        f"sekisho-experiments explain p0 --url http://127.0.0.1:{admin_port}",
        f"curl -s http://127.0.0.1:{admin_port}/metrics | grep sekisho_",
        f"http://127.0.0.1:{port}/docs",
        f"prediction log: {log_directory}/predictions/**/*.parquet",
    ]
    for line in lines:
        # As it is: wrapped or highlighted it could not be copied.
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def failures(results: Results) -> list[str]:
    """Name what went wrong in the run; empty where every part did its work."""
    found = []
    if results.refused:
        found.append(f"{len(results.refused)} requests failed, the first: {results.refused[0]}")
    if results.rows_dropped:
        found.append(f"the prediction log dropped {results.rows_dropped} rows")
    logged = sum(variant.rows for half in (results.outcomes_before, results.outcomes_after) for variant in half)
    if logged != len(results.answers):
        found.append(f"{len(results.answers)} answers were given, {logged} are in the prediction log")
    if results.after.outcome != "drift":
        found.append("the shift was not found as drift")
    return found


def _requests(console: Console, results: Results) -> None:
    console.rule("[bold]Requests")
    latencies = np.array([answer.latency_ms for answer in results.answers])
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99])
    degraded = sum(bool(answer.degraded) for answer in results.answers)
    console.print(
        f"{len(latencies)} predictions, {len(results.refused)} failed, {degraded} degraded\n"
        f"latency at the client: p50 {p50:.2f} ms, p95 {p95:.2f} ms, p99 {p99:.2f} ms"
    )


def _split(console: Console, answers: Sequence[Answer]) -> None:
    console.rule("[bold]Split, by patient")
    variant_by_patient = {answer.patient: answer.variant for answer in answers if answer.variant is not None}
    total = len(variant_by_patient)
    table = Table("variant", "configured", "seen", "patients", f"within {SPLIT_CONFIDENCE:.1%} bounds", box=None)
    for variant, share in CONFIGURED_SHARES.items():
        units = sum(served == variant for served in variant_by_patient.values())
        inside = binomtest(units, total, share).pvalue >= 1 - SPLIT_CONFIDENCE
        table.add_row(variant, f"{share:.1%}", f"{units / total:.1%}", str(units), "yes" if inside else "no")
    console.print(table)


def _accuracy(console: Console, results: Results) -> None:
    console.rule("[bold]Accuracy, from the outcome log")
    table = Table("traffic", "variant", "version", "predictions", "outcomes", "accuracy", box=None)
    for half, outcomes in (("as trained", results.outcomes_before), ("shifted", results.outcomes_after)):
        for outcome in outcomes:
            accuracy = "-" if outcome.mean is None else f"{outcome.mean:.1%}"
            name = outcome.variant or "(fallback)"
            table.add_row(half, name, outcome.version, str(outcome.rows), str(outcome.outcomes), accuracy)
    console.print(table)
