"""The split of an experiment edited by two people at once, under load: `python -m tests.fault.split_edits`.

Each edits through a gateway of their own: read, change, write with the ETag of what was read, again where the other was
faster. Told is how soon every gateway serves by each edit, what it costs the callers, and whether every logged row
follows from the revision that it names.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import duckdb

from experiments import Experiment, assign, parse_experiment
from tests.fault.experimenting_stack import CHAMPION, HEALTHY, MODEL, ExperimentingStack, questions
from tests.fault.load_records import Asked, LoadSpec, Phase
from tests.fault.running_load import quantile_ms, running_load
from tests.integration.experiments_admin import EXPERIMENTS, Admin, document
from tests.integration.gateway_client import Client, until
from tests.integration.gateway_stack import Gateway

NAME = "edited"
PATH = f"{EXPERIMENTS}/{NAME}"
LONGEST_S = 600.0
LOOK_EVERY_S = 0.005
COLUMNS = "unit, experiment, revision, epoch, variant_assigned, enrol_bucket, split_bucket, assignment_probability"


@dataclass
class Edits:
    """What became of the edits. Times in seconds of the monotonic clock."""

    answered: list[tuple[int, float, float]] = field(default_factory=list)
    """Revision, when its request was sent, and when it was answered."""

    conflicts: int = 0
    markers: list[str] = field(default_factory=list)
    """Each edit leaves one in the document."""

    seen: list[dict[int, float]] = field(default_factory=list)
    """By gateway: when each revision was first seen to be in force there, or a later one."""

    before: list[Asked] = field(default_factory=list)
    during: list[Asked] = field(default_factory=list)
    documents: dict[int, dict[str, Any]] = field(default_factory=dict)
    """By revision, as the audit trail has them."""

    audited: list[int] = field(default_factory=list)
    """Every revision in the audit trail, the eldest first."""

    final: dict[str, Any] = field(default_factory=dict)
    asked: int = 0
    rows: int = 0
    rows_by_revision: Counter[int] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)

    @property
    def propagation_ms(self) -> list[float]:
        """Of each edit: from when its request was sent until the last gateway served by it."""
        return [
            1000 * (max(_first_at_or_after(seen, revision) for seen in self.seen) - sent_s)
            for revision, sent_s, _ in self.answered
        ]

    @property
    def put_ms(self) -> list[float]:
        """How long each edit's request took."""
        return [1000 * (answered_s - sent_s) for _, sent_s, answered_s in self.answered]

    @property
    def lost(self) -> list[str]:
        """What was answered and is not there, and what is there and was not answered."""
        answered = {revision for revision, _, _ in self.answered}
        told = [f"revision {revision}" for revision in answered ^ set(self.audited[1:])]
        told += [f"revision {revision} twice" for revision, n in Counter(self.audited).items() if n > 1]
        told += set(self.markers) ^ set(self.final["overrides"])
        newest = self.documents[self.audited[-1]]["after"]
        return told if newest == self.final else [*told, "the last document is not the last in the audit trail"]

    @property
    def failures(self) -> Counter[str]:
        """Requests that were not answered whole, by kind."""
        return Counter(asked.kind for asked in (*self.before, *self.during) if asked.kind != "whole")

    def __str__(self) -> str:
        spread, put_ms = sorted(self.propagation_ms), self.put_ms
        p95_ms = spread[int(0.95 * len(spread))]
        writing = (
            f"{len(self.answered)} edits by 2 writers through 2 gateways in {_seconds(self):.1f} s, "
            f"{self.conflicts} conflicts (412) tried again; in the audit trail {len(self.audited) - 1}"
        )
        spreading = (
            f"in force on both gateways, from sending the request: median {median(spread):.0f} ms, "
            f"p95 {p95_ms:.0f} ms, max {spread[-1]:.0f} ms "
            f"(the request itself: median {median(put_ms):.0f} ms, max {max(put_ms):.0f} ms)"
        )
        serving = (
            f"p50 / p99 of {len(self.before):,} requests before: {_latencies(self.before)} ms; "
            f"of {len(self.during):,} while editing: {_latencies(self.during)} ms; "
            f"not answered whole: {dict(self.failures) or 'none'}"
        )
        logging = (
            f"{self.rows:,} logged rows of {self.asked:,} answers, of {len(self.rows_by_revision)} revisions, "
            f"{len(self.unexplained)} of them not as their revision has it"
        )
        return f"{writing}\n{spreading}\n{serving}\n{logging}"


def edit_under_load(
    stack: ExperimentingStack, *, edits: int, pause_s: float, before_s: float, rate_per_s: float
) -> Edits:
    """Edit so often, by two writers at once, while each gateway is asked so often a second."""
    result = Edits()
    pair = stack.pair
    admins = [Admin(gateway.admin_port) for gateway in pair]
    admins[0].clear()
    first = admins[0].create(document(NAME, model=MODEL, salt="edits", variants=_variants(5_000), overrides={}))
    created = int(first.json["revision"])
    until("both gateways have it", lambda: all(admin.has(created) for admin in admins))
    with ExitStack() as running:
        phases = (Phase(LONGEST_S, rate_per_s),)
        loads = [
            running.enter_context(running_load(LoadSpec(ports=(g.port,), questions=questions(), phases=phases, seed=n)))
            for n, g in enumerate(pair)
        ]
        result.seen = [running.enter_context(_watching(gateway)) for gateway in pair]
        for load in loads:
            load.wait_for(20)
        from_s = time.monotonic()
        loads[0].run_for(before_s)
        began_s = time.monotonic()
        _edit(admins, result, edits, pause_s)
        last = max(revision for revision, _, _ in result.answered)
        until("the last edit is seen", lambda: all(max(seen, default=0) >= last for seen in result.seen))
        ended_s = time.monotonic()
        loads[0].run_for(0.3)
    asked = [asked for load in loads for asked in load.asked]
    result.asked = len(asked)
    result.before = [a for a in asked if from_s <= a.due_s < began_s]
    result.during = [a for a in asked if began_s <= a.due_s < ended_s]
    result.final = admins[0].get(PATH)["document"]
    _read_audit(admins[1], result, created)
    for gateway in pair:
        _explain(gateway, result)
    return result


def _edit(admins: Sequence[Admin], result: Edits, edits: int, pause_s: float) -> None:
    lock = threading.Lock()
    problems: list[BaseException] = []

    def write(number: int) -> None:
        random = Random(number)
        try:
            for count in range(edits // len(admins)):
                marker = f"edit-{number}-{count}"
                sent_s = 0.0

                def changed(now: dict[str, Any], marker: str = marker) -> dict[str, Any]:
                    nonlocal sent_s
                    sent_s = time.monotonic()
                    return {
                        **now,
                        "variants": _variants(random.randrange(1, 100) * 100),
                        "enrol_bp": random.choice((10_000, 8_000)),
                        "overrides": {**now["overrides"], marker: "control"},
                    }

                reply, conflicts = admins[number].change(NAME, changed)
                with lock:
                    result.answered.append((int(reply.json["revision"]), sent_s, time.monotonic()))
                    result.conflicts += conflicts
                    result.markers.append(marker)
                time.sleep(pause_s * random.uniform(0.5, 1.5))
        except BaseException as problem:  # noqa: BLE001 - told by whoever waits
            problems.append(problem)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(admins))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]


@contextmanager
def _watching(gateway: Gateway) -> Iterator[dict[int, float]]:
    """Look again and again which revision a gateway serves by."""
    seen: dict[int, float] = {}
    stopping = threading.Event()

    def watch() -> None:
        with Client(gateway.admin_port) as client:
            while not stopping.wait(LOOK_EVERY_S):
                revision = int(client.ask("GET", PATH).headers["etag"].strip('"'))
                seen.setdefault(revision, time.monotonic())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stopping.set()
        thread.join(10)


def _read_audit(admin: Admin, result: Edits, created: int) -> None:
    entries = admin.get(f"/admin/v1/audit?experiment={NAME}&limit=1000")["entries"]
    own = sorted((e for e in entries if e["revision"] >= created), key=lambda e: int(e["revision"]))
    result.audited = [int(entry["revision"]) for entry in own]
    result.documents = {int(entry["revision"]): {"epoch": entry["epoch"], **entry} for entry in own}


def _explain(gateway: Gateway, result: Edits) -> None:
    """Draw every logged row once more, by the document that the audit trail has of the revision that it names."""
    gateway.wait_for_log()
    known: dict[int, tuple[Experiment, ...]] = {}
    files = f"{gateway.log_directory}/predictions/model={MODEL}/**/*.parquet"
    table = duckdb.sql(
        f"SELECT {COLUMNS}, version, variant_served FROM read_parquet('{files}', union_by_name=true)"
        f" WHERE experiment = '{NAME}' AND revision >= {result.audited[0]}"
    )
    for unit, _, revision, epoch, variant, enrol, split, probability, version, served in table.fetchall():
        result.rows += 1
        result.rows_by_revision[revision] += 1
        if revision not in result.documents:
            result.unexplained.append(f"{unit}: revision {revision} is not in the audit trail")
            continue
        if revision not in known:
            entry = result.documents[revision]
            known[revision] = (parse_experiment(entry["after"], revision=revision, epoch=entry["epoch"]),)
        decision = assign(known[revision], unit, {"user": unit})
        drawn = decision.variant
        explained = (
            known[revision][0].epoch,
            drawn.name if drawn else None,
            decision.enrol_bucket,
            decision.split_bucket,
            decision.probability,
            drawn.version if drawn else CHAMPION,
        )
        if explained != (epoch, variant, enrol, split, probability, version) or served != variant:
            result.unexplained.append(f"{unit} at revision {revision}: {explained}, and logged {variant} {version}")


def _variants(control_bp: int) -> list[dict[str, Any]]:
    return [
        {"name": "control", "version": CHAMPION, "bp": control_bp},
        {"name": "treatment", "version": HEALTHY, "bp": 10_000 - control_bp},
    ]


def _first_at_or_after(seen: dict[int, float], revision: int) -> float:
    return min(at_s for found, at_s in seen.items() if found >= revision)


def _latencies(asked: Sequence[Asked]) -> str:
    return f"{quantile_ms(asked, 0.5):.1f} / {quantile_ms(asked, 0.99):.1f}"


def _seconds(edits: Edits) -> float:
    return max(answered for _, _, answered in edits.answered) - min(sent for _, sent, _ in edits.answered)


def main(arguments: Sequence[str] | None = None) -> int:
    """Edit, and print what became of it. Exit code 1 where anything was lost, failed or unexplained."""
    parser = argparse.ArgumentParser(prog="python -m tests.fault.split_edits", description=__doc__)
    parser.add_argument("--edits", type=int, default=100, help="of both writers together, 100 if not given")
    parser.add_argument("--pause-ms", type=float, default=50, help="of a writer between two edits, 50 if not given")
    parser.add_argument("--rate", type=float, default=100, help="requests a second at each gateway, 100 if not given")
    parser.add_argument("--before-s", type=float, default=5, help="of load without edits, 5 if not given")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sekisho-edits-") as directory:
        stack = ExperimentingStack(Path(directory))
        try:
            stack.start()
            result = edit_under_load(
                stack,
                edits=given.edits,
                pause_s=given.pause_ms / 1000,
                before_s=given.before_s,
                rate_per_s=given.rate,
            )
        finally:
            stack.stop()
    print(result)
    return 1 if result.lost or result.failures or result.unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
