"""Whatever a register was put through, its log is explained; and no one value of a row can be another unnoticed."""

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from analysis.assignment_replay import replay
from analysis.assignment_replay.history import read_history
from analysis.assignment_replay.recomputation import Recomputation
from analysis.assignment_replay.where_attributes import AttributeColumn, LoggedAttributes
from experiments import ExperimentError, Reason
from tests.unit.analysis.assignment_replay.logged_history import RegisterHistory, Rows, arms, as_read, document

COLUMNS = {"entities": ["user"], "views": ["profile"], "features": [("request.age", "INT64")]}

units = st.sampled_from(["u1", "u2", "7"]) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
documents = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "b"])},
    optional={
        "state": st.sampled_from(["draft", "running", "running", "running", "paused", "concluded"]),
        "hash": st.sampled_from(["v1", "v1", "growthbook-v2", "eppo"]),
        "salt": st.sampled_from(["s1", "s2", "s3"]),
        "enrol_bp": st.integers(0, 10_000) | st.just(10_000),
        "where": st.sampled_from([None, "age > 3", "not (age >= 3) or user == 'u1'", "tier == 'gold'"]),
        "variants": st.integers(0, 10_000).map(lambda bp: arms(bp, 10_000 - bp))
        | st.tuples(st.integers(0, 5_000), st.integers(0, 5_000)).map(lambda bp: arms(*bp, 10_000 - sum(bp))),
        "overrides": st.dictionaries(units, st.sampled_from(["control", "treatment"]), max_size=3),
        "winner": st.sampled_from(["control", "treatment"]),
        "holdout": st.sampled_from([None, {"name": "h", "bp": 3_000}]),
        "layer": st.sampled_from([{"name": "x"}, {"name": "y", "slots": [[0, 4_000], [7_000, 9_000]]}]),
    },
)
requests = st.lists(st.tuples(units, st.integers(0, 6)), min_size=1, max_size=6)
steps = st.lists(st.tuples(documents, requests), min_size=1, max_size=6)


def logged(steps: Any) -> tuple[RegisterHistory, Rows]:
    """Put each document that the register takes, and after each answer some requests."""
    history, rows = RegisterHistory(), Rows()
    for wanted, asked in steps:
        changes = {"layer": {"name": wanted["name"]}} | wanted
        if changes.get("state") != "concluded":
            changes.pop("winner", None)
        with suppress(ExperimentError):
            history.put(document(**changes))
        experiments = history.register.of_model("m")
        for unit, age in asked:
            sent = {"entity.user": unit, "f.request.age": age, "status.profile": "PRESENT"}
            rows.answer(experiments, unit, {"user": unit, "age": age, "tier": "gold"}, **sent)
    return history, rows


def changed(data: st.DataObject, row: dict[str, Any]) -> dict[str, Any]:
    """Give one value of a row another value, where it matters."""
    names = ["model", "revision", "experiment", "epoch", "variant_assigned", "variant_served", "split_bucket"]
    names += ["enrol_bucket", "assignment_probability", "shadow"]
    if row["assignment_probability"] is not None:  # a unit decides little where it was not drawn; nor is forced told
        names += ["unit", "forced", "version", "error_code"]
    name = data.draw(st.sampled_from(names))
    others = {
        "model": st.just("other"),
        "revision": st.none() | st.integers(1_000, 2**62),
        "experiment": st.none() | st.just("z"),
        "epoch": st.none() | st.integers(0, 2**62),
        "variant_assigned": st.sampled_from([None, "control", "treatment", "other", "nobody"]),
        "variant_served": st.sampled_from([None, "control", "treatment", "other", "nobody"]),
        "split_bucket": st.none() | st.integers(0, 9_999),
        "enrol_bucket": st.none() | st.integers(0, 9_999),
        "assignment_probability": st.none() | st.floats(0, 1).map(lambda p: round(p, 9)),
        "shadow": st.just(True),
        "unit": st.none() | units,
        "forced": st.just(True),
        "version": st.sampled_from(["0", "1", "2", "3", "static"]),
        "error_code": st.just("worker_unavailable"),
    }
    value = data.draw(others[name])
    assume(value != row[name])
    return row | {name: value}


def recomputation_of(history: RegisterHistory) -> Recomputation:
    with tempfile.TemporaryDirectory() as folder:
        return Recomputation(read_history([history.write(Path(folder) / "audit.jsonl")]))


def judged(recomputation: Recomputation, row: dict[str, Any]) -> Any:
    """Judge a row as the replay does that has its columns."""
    read = as_read(row)
    revisions = recomputation.revisions(read.answer.experiment, read.answer.revision) if row["revision"] else ()
    if not revisions or revisions[0].where is None or "tier" in revisions[0].where.names:
        return recomputation.judge(read)
    named = revisions[0].where.names
    values = {"age": row["f.request.age"], "user": row["entity.user"]}
    columns = {"age": "f.request.age", "user": "entity.user"}
    attributes = LoggedAttributes({name: values[name] for name in named}, of_several=False, of_tensors=False)
    return recomputation.judge(read, attributes, tuple(AttributeColumn(name, columns[name], "") for name in named))


@settings(max_examples=150, deadline=None)
@given(steps=steps, data=st.data())
def test_any_history_explains_its_rows_and_none_of_them_with_another_value(steps: Any, data: st.DataObject) -> None:
    history, rows = logged(steps)
    recomputation = recomputation_of(history)
    for row in rows.rows:
        assert judged(recomputation, row).fault is None, row
    named = [row for row in rows.rows if row["experiment"] is not None]
    assume(named)
    row = data.draw(st.sampled_from(named))
    other = changed(data, row)
    if other["unit"] is not None and other["unit"] != row["unit"]:
        assume(not collides(recomputation, row, other["unit"]))
    assert judged(recomputation, other).fault is not None, other


def collides(recomputation: Recomputation, row: dict[str, Any], unit: str) -> bool:
    """Whether another unit is drawn alike, which one in some thousands is by GrowthBook's one draw."""
    (revision,) = recomputation.revisions(row["experiment"], row["revision"])
    drawn = revision.experiment
    return (drawn.enrol(unit), drawn.split(unit)) == (row["enrol_bucket"], row["split_bucket"])


@settings(max_examples=12, deadline=None)
@given(steps=steps, data=st.data())
def test_a_log_in_files_is_explained_and_one_changed_row_of_it_is_one_mismatch(steps: Any, data: st.DataObject) -> None:
    history, rows = logged(steps)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        audit = history.write(root / "audit.jsonl")
        rows.write(root, **COLUMNS)
        report = replay(root, [audit], threads=1)
        assert (report.mismatches, sum(report.rows_by_reason.values())) == (0, len(rows.rows)), report
        named = [i for i, row in enumerate(rows.rows) if row["assignment_probability"] is not None]
        assume(named)
        rows.rows = [rows.rows[data.draw(st.sampled_from(named))]]
        rows.rows[0] |= {"prediction_id": "changed", "split_bucket": (rows.rows[0]["split_bucket"] + 1) % 10_000}
        rows.write(root, **COLUMNS)
        report = replay(root, [audit], threads=1)
        assert report.mismatches == 1
        assert report.mismatch_classes[0].examples[0].prediction_id == "changed"


def test_the_rows_that_are_made_are_of_many_reasons() -> None:
    seen: set[str] = set()

    @settings(max_examples=150, deadline=None, database=None, derandomize=True)
    @given(steps=steps)
    def look(steps: Any) -> None:
        history, rows = logged(steps)
        recomputation = recomputation_of(history)
        seen.update(judged(recomputation, row).reason for row in rows.rows)

    look()
    assert seen >= {reason.value for reason in Reason} - {"no_unit", "forced", "no_experiment"}
