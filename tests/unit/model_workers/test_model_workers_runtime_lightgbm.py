import json
import subprocess
import sys
from pathlib import Path
from threading import Thread

import lightgbm
import numpy as np
import pytest

from contracts.manifest import Input, Output
from model_workers.errors import ModelMismatch
from model_workers.loading import load_version
from model_workers.repository import VersionDirectory
from model_workers.runtimes.lightgbm_text import LightGbmTextError, check_text
from tests.unit.model_workers.fake_parts import HandClock
from tests.unit.model_workers.published_models import lightgbm_manifest, publish

ROOT = Path(__file__).resolve().parents[3]
COLUMNS = 5
CATEGORY = 4
"""The column of category codes."""

OBJECTIVES = {
    "binary": {},
    "cross_entropy": {},
    "regression": {},
    "regression_l1": {},
    "quantile": {"alpha": 0.9},
    "poisson": {},
    "multiclass": {"num_class": 3},
    "multiclassova": {"num_class": 3},
    "lambdarank": {},
}
VARIANTS = {
    "gbdt": {},
    "dart": {"boosting": "dart"},
    "rf": {"boosting": "rf", "bagging_fraction": 0.5, "bagging_freq": 1},
    "zeros are missing": {"zero_as_missing": True},
    "nothing is missing": {"use_missing": False},
    "linear leaves": {"linear_tree": True},
    "one leaf": {"min_data_in_leaf": 10_000},
}


def training_rows():
    """Return rows with missing values, zeros and a column of category codes, and a target from 0 to 2."""
    chance = np.random.default_rng(0)
    rows = chance.normal(size=(600, COLUMNS))
    rows[chance.random(rows.shape) < 0.1] = np.nan
    rows[chance.random(rows.shape) < 0.1] = 0
    rows[:, CATEGORY] = chance.integers(0, 12, len(rows))
    return rows, (np.nan_to_num(rows[:, 0]) > 0) + (rows[:, CATEGORY] % 3 == 0).astype(int)


def train(objective, **parameters):
    rows, target = training_rows()
    if objective in ("binary", "cross_entropy"):
        target = target > 0
    settings = {"objective": objective, "num_leaves": 8, "verbosity": -1, "num_threads": 1, "seed": 0, **parameters}
    settings |= {"max_cat_to_onehot": 2, "min_data_per_group": 10, "cat_smooth": 1}
    group = [20] * 30 if objective == "lambdarank" else None
    data = lightgbm.Dataset(
        rows, target, group=group, categorical_feature=[CATEGORY], params={"linear_tree": "linear_tree" in parameters}
    )
    return lightgbm.train(settings, data, num_boost_round=8)


def rows_to_score():
    """Return rows as in training, and some of unseen, odd or no categories, of missing, huge or only zero values."""
    rows = training_rows()[0][:60]
    rows[:8, CATEGORY] = [12, 1e6, -1, -0.5, 2.7, np.nan, 2**31, 1e300]
    rows[8:10] = np.nan
    rows[10] = 0
    rows[11] = np.inf
    rows[12] = -1e300
    return rows


def load_booster(directory, booster, dtype="FP64", **changes):
    classes = booster.num_model_per_iteration()
    shape = (-1,) if classes == 1 else (-1, classes)
    manifest = lightgbm_manifest(
        *("m", "1", COLUMNS),
        **{"inputs": (Input("x", dtype, (-1, COLUMNS)),), "outputs": (Output("y", "FP64", shape),), **changes},
    )
    path = publish(directory, booster.model_to_string().encode(), manifest)
    return load_version(VersionDirectory("m", "1", path), HandClock()).model


def check_same(model, rows, expected):
    together = model.execute({"x": rows}, ["y"])["y"]
    alone = np.concatenate([model.execute({"x": rows[i : i + 1]}, ["y"])["y"] for i in range(len(rows))])
    np.testing.assert_array_equal(together, expected)
    np.testing.assert_array_equal(alone, expected)


@pytest.mark.filterwarnings("ignore:.*categorical_feature.*:UserWarning")
@pytest.mark.parametrize("dtype", ["FP32", "FP64"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_scores_as_offline_to_the_last_bit_alone_and_together(tmp_path, objective, dtype):
    booster = train(objective, **OBJECTIVES[objective])
    with np.errstate(over="ignore"):
        rows = rows_to_score().astype(np.float32 if dtype == "FP32" else np.float64)
    check_same(load_booster(tmp_path, booster, dtype), rows, booster.predict(rows, num_threads=1))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_tree_scores_as_offline_to_the_last_bit_alone_and_together(tmp_path, variant):
    booster = train("regression", **VARIANTS[variant])
    rows = rows_to_score()
    check_same(load_booster(tmp_path, booster), rows, booster.predict(rows, num_threads=1))


@pytest.mark.parametrize("objective", ["binary", "multiclass"])
def test_a_raw_score_is_given_where_the_manifest_asks_it(tmp_path, objective):
    booster = train(objective, **OBJECTIVES[objective])
    rows = rows_to_score()
    model = load_booster(tmp_path, booster, parameters={"raw_score": True})
    check_same(model, rows, booster.predict(rows, raw_score=True, num_threads=1))


def test_the_words_of_a_pandas_column_are_sent_as_their_positions_in_the_models_last_line(tmp_path):
    pandas = pytest.importorskip("pandas")
    words = np.random.default_rng(0).choice(["red", "green", "blue"], 300)
    frame = pandas.DataFrame({"colour": pandas.Categorical(words), "x": np.arange(300.0)})
    booster = lightgbm.train(
        {"objective": "regression", "verbosity": -1, "num_threads": 1, "min_data_per_group": 1},
        lightgbm.Dataset(frame, (words == "red") * 2.0 + (words == "blue")),
        num_boost_round=3,
    )
    (positions,) = json.loads(booster.model_to_string().rpartition("pandas_categorical:")[2])
    manifest = {"inputs": (Input("x", "FP64", (-1, 2)),)}
    rows = np.column_stack([[positions.index(word) for word in words], frame["x"]])
    check_same(load_booster(tmp_path, booster, **manifest), rows, booster.predict(frame, num_threads=1))


def test_single_rows_of_two_threads_get_their_own_answers(tmp_path):
    booster = train("multiclass", num_class=3)
    model = load_booster(tmp_path, booster)
    rows = training_rows()[0]
    expected = booster.predict(rows, num_threads=1)
    answers = [[], []]

    def score(thread):
        for i in range(thread, len(rows), 2):
            answers[thread].append(model.execute({"x": rows[i : i + 1]}, ["y"])["y"][0])

    threads = [Thread(target=score, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    np.testing.assert_array_equal(answers[0], expected[0::2])
    np.testing.assert_array_equal(answers[1], expected[1::2])


def test_words_are_refused_with_what_to_send_instead(tmp_path):
    with pytest.raises(ModelMismatch, match=r"'x' is BYTES; a LightGBM model takes .*, categories as codes"):
        load_booster(tmp_path, train("binary"), "BYTES")


def test_a_damaged_model_never_ends_the_process(tmp_path):
    artifact = tmp_path / "model.txt"
    train("binary", linear_tree=True).save_model(artifact)
    program = ROOT / "tests" / "unit" / "model_workers" / "damaged_models.py"
    ran = subprocess.run(
        [sys.executable, program, "lightgbm", artifact, str(COLUMNS), tmp_path],
        check=False,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran
    refused, taken = map(int, ran.stdout.splitlines()[-1].split())
    assert refused > 100
    assert taken > 10


TEXT = b"""tree
version=v4
num_class=1
num_tree_per_iteration=1
label_index=0
max_feature_idx=1
objective=regression
feature_names=a b
feature_infos=[0:1] [0:1]
tree_sizes=%d

%send of trees
"""

TREE = b"""Tree=0
num_leaves=3
num_cat=1
split_feature=0 1
threshold=0.5 0
decision_type=2 1
left_child=1 -1
right_child=-2 -3
leaf_value=1 2.5 -3e-05
cat_boundaries=0 1
cat_threshold=6
shrinkage=0.1


"""


def text_with(old=b"", new=b""):
    assert TREE.count(old) or TEXT.count(old)
    tree = TREE.replace(old, new)
    return TEXT.replace(old, new) % (len(tree), tree)


def test_a_well_formed_text_passes():
    check_text(text_with())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"right_child=-2 -3", b"right_child=-2 -2", "the children in tree 0 do not form a tree of 3 leaves"),
        (b"left_child=1 -1", b"left_child=0 -1", "the children in tree 0 do not form a tree of 3 leaves"),
        (b"left_child=1 -1", b"left_child=1", "left_child of tree 0 has 1 numbers instead of 2"),
        (b"split_feature=0 1", b"split_feature=0 2", "split_feature of tree 0 goes from 0 to 2 instead of 0 to 1"),
        (b"split_feature=0 1", b"split_feature=0 -1", "split_feature of tree 0 goes from -1 to 0 instead of 0 to 1"),
        (b"threshold=0.5 0", b"threshold=0.5 1", "splits by a set of categories that it does not have"),
        (b"threshold=0.5 0", b"threshold=0.x 0", "threshold of tree 0 is no list of numbers: '0.x 0'"),
        (b"cat_boundaries=0 1", b"cat_boundaries=0 2", "cat_boundaries of tree 0 do not fit its cat_threshold"),
        (b"cat_threshold=6", b"cat_threshold=", "cat_threshold of tree 0 is no list of integers: ''"),
        (b"leaf_value=", b"leaf-value=", "tree 0 has no leaf_value"),
        (b"shrinkage=0.1", b"shrinkage0.1", "a line of tree 0 is not of the form `name=value`"),
        (b"shrinkage=0.1", b"num_cat=1", "tree 0 gives 'num_cat' twice"),
        (b"Tree=0", b"Tree=1", "tree 0 does not lie where `tree_sizes` says"),
        (b"num_leaves=3", b"num_leaves=0", "tree 0 has 0 leaves"),
        (b"num_class=1", b"num_class=2", "the header gives 2 classes, 1 trees an iteration"),
        (
            b"objective=regression",
            b"objective=multiclass num_class:9",
            r"1 classes, .* objective \[9\]",
        ),
        (b"tree_sizes=", b"trees=", "the header has no tree_sizes"),
        (b"end of trees", b"end of", "after 1 trees, `end of trees` is missing"),
        (b"end of trees", b"end of trees\n\nparameters:", "`end of parameters` is missing"),
        (b"label_index", b"label\0index", "byte 58 is zero"),
        (b"\n", b"\r\n", "its line ends were made CRLF on the way"),
        (b"tree\nversion", b"trie\nversion", "begins with a line `tree`"),
    ],
)
def test_a_text_that_would_lead_the_library_astray_is_refused_with_the_place(old, new, said):
    with pytest.raises(LightGbmTextError, match=said):
        check_text(text_with(old, new))
