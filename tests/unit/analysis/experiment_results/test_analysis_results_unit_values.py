"""The table of units against a slow and plain computation of the same, row by row."""

from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest

from analysis.experiment_results.counted_rows import counted, epoch_arms
from analysis.experiment_results.experiment_log import open_experiment_log
from analysis.experiment_results.time_slots import time_slots
from analysis.experiment_results.unit_table import keep_units
from experiments.metrics import parse_metric
from tests.unit.analysis.experiment_results.experiment_logs import DAY_US, START_US

WINDOW_S = 86_400
METRICS = [
    parse_metric(given, "m")
    for given in (
        "correct",
        {"name": "buyers", "of": "per_unit", "numerator": "purchase"},
        {"name": "ctr", "numerator": "click", "denominator": "view"},
        "score",
        "latency_ms",
        "error_rate",
        "fallback_rate",
    )
]


def random_log(logs, rng, rows=600, units=40):
    """Write rows over six days, of two epochs, with a past, and outcomes of all kinds; give rows and outcomes."""
    unit = np.array([f"u{n}" for n in rng.integers(0, units, rows)])
    at_us = START_US + rng.integers(-4 * DAY_US, 6 * DAY_US, rows)
    mine = at_us >= START_US
    epoch = np.where(at_us < START_US + 3 * DAY_US, 7, 3)  # numbers need not rise
    arm = np.array([("control", "treatment")[hash_of(u, e)] for u, e in zip(unit, epoch, strict=True)])
    score = np.where(rng.random(rows) < 0.1, np.nan, rng.random(rows))
    latency = rng.integers(500, 9_000, rows)
    degraded = [["view"] if one else [] for one in rng.random(rows) < 0.2]
    error = [("timeout" if one else None) for one in rng.random(rows) < 0.15]
    ids = logs.rows(
        pa.array(unit),
        pa.array(arm.tolist(), mask=~mine),
        at_us,
        experiment=pa.array(["exp"] * rows, mask=~mine),
        assignment_probability=pa.array(np.full(rows, 0.5), mask=~mine),
        epoch=pa.array(epoch, mask=~mine),
        score=score,
        total_us=latency,
        degraded=pa.array(degraded, pa.list_(pa.string())),
        error_code=pa.array(error, pa.string()),
    )
    found = [
        {"id": i, "unit": u, "at": t, "epoch": e, "arm": a, "mine": m, "score": s, "latency": x, "bad": b, "error": r}
        for i, u, t, e, a, m, s, x, b, r in zip(
            ids, unit, at_us, epoch, arm, mine, score, latency, degraded, error, strict=True
        )
    ]
    return found, random_outcomes(logs, rng, found)


def hash_of(unit, epoch):
    """Draw an arm that a unit keeps within an epoch."""
    return (int(unit[1:]) * 7 + int(epoch)) % 5 % 2


def random_outcomes(logs, rng, rows):
    """Tell outcomes by row and by unit, some twice, late, or too late."""
    told = []
    for metric in ("correct", "purchase", "click", "view"):
        for one in rows:
            for _ in range(rng.integers(0, 3)):
                at = int(one["at"] + rng.integers(0, 2 * DAY_US))
                value = float(rng.integers(0, 4))
                by = {"id": one["id"]} if rng.random() < 0.7 else {"unit": one["unit"]}
                told.append(by | {"metric": metric, "value": value, "at": at, "received": int(rng.integers(0, 3))})
    for keyed in ("id", "unit"):
        some = [one for one in told if keyed in one]
        columns = {name: [one[name] for one in some] for name in ("metric", "value", "at", "received")}
        key = {"prediction_id" if keyed == "id" else "unit": [one[keyed] for one in some]}
        logs.outcomes(columns["metric"], columns["value"], columns["at"], received_at=columns["received"], **key)
    return told


def last(told):
    """Give the value that counts among several of one key."""
    return max(told, key=lambda one: (one["at"], one["received"], one["value"]))["value"]


def plain_sums(rows, told, until_of, units_time):
    """Add up rows and outcomes by key, as the docs say. units_time: key and unit to [since, until)."""
    sums = defaultdict(lambda: defaultdict(float))
    by_id, by_unit = defaultdict(list), defaultdict(list)
    for one in told:
        (by_id if "id" in one else by_unit)[one.get("id", one.get("unit")), one["metric"]].append(one)
    for one in rows:
        into = sums[one["key"]]
        into["rows"] += 1
        into["latency"] += one["latency"] / 1000
        into["error"] += one["error"] is not None
        into["fallback"] += bool(one["bad"])
        if not np.isnan(one["score"]):
            into["score"] += one["score"]
            into["scored"] += 1
    for metric in ("correct", "purchase", "click", "view"):
        for one in rows:
            some = [t for t in by_id[one["id"], metric] if t["at"] <= until_of(one)]
            if some:
                sums[one["key"]][metric] += last(some)
                sums[one["key"]][f"n_{metric}"] += 1
        for (key, unit), (since, until) in units_time.items():
            some = [t for t in by_unit[unit, metric] if since <= t["at"] < until]
            if some:
                sums[key][metric] += last(some)
                sums[key][f"n_{metric}"] += 1
    return sums


def values_of(sums, per_unit):
    """Give numerator and denominator of each of METRICS."""
    pairs = [
        (sums["correct"], sums["n_correct"]),
        (sums["purchase"], per_unit),
        (sums["click"], sums["view"]),
        (sums["score"], sums["scored"]),
        (sums["latency"], sums["rows"]),
        (sums["error"], sums["rows"]),
        (sums["fallback"], sums["rows"]),
    ]
    return [number for pair in pairs for number in pair]


def expected(rows, told):
    """Compute the table of units slowly."""
    mine = [one | {"key": (one["unit"], int(one["epoch"]))} for one in rows if one["mine"]]
    first = {}
    for one in mine:
        first[one["key"]] = min(one["at"], first.get(one["key"], one["at"]))
    second_starts = min(at for (_, epoch), at in first.items() if epoch == 3)
    window = WINDOW_S * 1_000_000
    in_epoch = {
        (key, key[0]): (at, min(at + window, second_starts if at < second_starts else at + window))
        for key, at in first.items()
    }
    now = plain_sums(mine, told, lambda one: one["at"] + window, in_epoch)
    exposed = {}
    for (unit, _), at in first.items():
        exposed[unit] = min(at, exposed.get(unit, at))
    past = [
        one | {"key": one["unit"]}
        for one in rows
        if one["unit"] in exposed and exposed[one["unit"]] - 2 * DAY_US <= one["at"] < exposed[one["unit"]]
    ]
    before = plain_sums(
        past,
        told,
        lambda one: min(one["at"] + window, exposed[one["unit"]] - 1),
        {(unit, unit): (at - 2 * DAY_US, at) for unit, at in exposed.items()},
    )
    return {key: values_of(now[key], 1) + values_of(before[key[0]], float(before[key[0]]["rows"] > 0)) for key in first}


@pytest.mark.parametrize("seed", range(4))
def test_the_table_of_units_is_what_a_slow_computation_gives(logs, seed):
    rows, told = random_log(logs, np.random.default_rng(seed))
    with open_experiment_log(logs.root, "diagnosis") as log:
        mine = counted(log.rows, "exp")
        found = epoch_arms(log, mine)
        units = keep_units(
            log,
            mine,
            metrics=METRICS,
            window_s=WINDOW_S,
            covariate_days=2,
            epoch_starts_us=[min(one.first_us for one in found if one.epoch == e) for e in {o.epoch for o in found}],
            slots=time_slots(START_US, START_US + 8 * DAY_US),
        )
        lines = log.lines(units.table)
    columns = [units.columns(metric) for metric in METRICS]
    got = {
        (line["unit"], line["epoch"]): [line[name] for pair in columns for name in pair[:2]]
        + [line[name] for pair in columns for name in pair[2:]]
        for line in lines
    }
    wanted = expected(rows, told)
    assert got.keys() == wanted.keys()
    for key, values in wanted.items():
        assert got[key] == pytest.approx(values), key
    arms = {(one["unit"], int(one["epoch"])): one["arm"] for one in rows if one["mine"]}
    assert {(line["unit"], line["epoch"]): line["arm"] for line in lines} == arms
    firsts = [line["unit"] for line in lines if line["is_first"]]
    assert len(firsts) == len(set(firsts)) == len({line["unit"] for line in lines})
