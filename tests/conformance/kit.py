"""Every check, and a run of them."""

from collections.abc import Iterator, Sequence
from typing import Final

from tests.conformance import (
    checks_binary,
    checks_extensions,
    checks_hardening,
    checks_http,
    checks_inference,
    checks_metadata,
    checks_refusals,
    checks_values,
    checks_wrong_tensors,
)
from tests.conformance.check import Check, Level, Result, Verdict
from tests.conformance.expectations import Deviation, NotOffered
from tests.conformance.probe import Probe
from tests.conformance.target import Target, Undrivable
from tests.conformance.wire import NotJson, Reply

CHECKS: Final[tuple[Check, ...]] = (
    *checks_metadata.CHECKS,
    *checks_inference.CHECKS,
    *checks_values.CHECKS,
    *checks_refusals.CHECKS,
    *checks_wrong_tensors.CHECKS,
    *checks_http.CHECKS,
    *checks_binary.CHECKS,
    *checks_extensions.CHECKS,
    *checks_hardening.CHECKS,
    checks_values.LAST,
)


def run_checks(target: Target, checks: Sequence[Check] = CHECKS) -> Iterator[Result]:
    """Run the checks in order. Raises Undrivable where the model does not take generated inputs."""
    replies: list[Reply] = []
    _try_out(target, replies)
    for check in checks:
        yield _result(check, Probe(target, replies))


def _try_out(target: Target, replies: list[Reply]) -> None:
    probe = Probe(target, replies)
    try:
        reply = probe.infer(probe.request())
    except Deviation as deviation:
        raise Undrivable(f"a first inference on {target.model!r} got {deviation.found}") from deviation
    if reply.status != 200:
        raise Undrivable(
            f"{target.model!r} does not take generated inputs: {probe.came[-1]}; "
            "describe them with --input NAME:DATATYPE:SHAPE, or what it needs besides with --parameter NAME=VALUE"
        )


def _result(check: Check, probe: Probe) -> Result:
    expected, found = check.claim, "as claimed"
    verdict = Verdict.PASSES
    try:
        said = check.run(probe)
        if check.level is Level.OBSERVED:
            verdict, found = Verdict.OBSERVED, said or "nothing to tell"
    except Deviation as deviation:
        verdict, expected, found = Verdict.DEVIATES, deviation.expected, deviation.found
        if check.level is Level.OBSERVED:
            verdict = Verdict.OBSERVED
    except NotOffered as reason:
        verdict, found = Verdict.NOT_OFFERED, str(reason)
    except (NotJson, AttributeError, IndexError, KeyError, TypeError) as error:
        # A check reads into an answer as the specification draws it: what is not there, is the server's deviation.
        verdict, expected = Verdict.DEVIATES, "an answer of the specified form"
        found = f"another ({type(error).__name__}: {error})"
    return Result(
        check=check, verdict=verdict, expected=expected, found=found, sent=tuple(probe.sent), came=tuple(probe.came)
    )
