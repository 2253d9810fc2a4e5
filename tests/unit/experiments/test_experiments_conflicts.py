from collections.abc import Callable
from typing import Any

import pytest

from experiments import Experiment, ExperimentError
from experiments.conflicts import refuse_conflicts


def test_two_experiments_of_one_name_are_refused(experiment: Callable[..., Experiment]):
    with pytest.raises(ExperimentError, match="'e' is defined twice"):
        refuse_conflicts([experiment(), experiment(state="draft")])


@pytest.mark.parametrize("states", [("running", "running"), ("running", "paused"), ("paused", "paused")])
def test_live_experiments_of_one_layer_may_not_share_a_slot(
    experiment: Callable[..., Experiment], states: tuple[str, str]
):
    one = experiment(state=states[0], layer={"slots": [[0, 5_001]]})
    other = experiment(experiment="f", state=states[1], layer={"slots": [[0, 0 + 1], [5_000, 10_000]]})
    with pytest.raises(ExperimentError, match="overlap in layer 'default'"):
        refuse_conflicts([one, other])


@pytest.mark.parametrize(
    "change",
    [
        {"layer": {"slots": [[5_000, 10_000]]}},
        {"layer": {"name": "another"}},
        {"model": "another"},
        {"state": "draft"},
        {"state": "concluded"},
    ],
)
def test_experiments_that_cannot_meet_are_no_conflict(experiment: Callable[..., Experiment], change: dict[str, Any]):
    one = experiment(layer={"slots": [[0, 5_000]]})
    refuse_conflicts([one, experiment(**{"experiment": "f"} | change)])


def test_a_layer_has_one_unit_kind(experiment: Callable[..., Experiment]):
    one = experiment(layer={"slots": [[0, 5_000]]})
    other = experiment(experiment="f", unit="session", layer={"slots": [[5_000, 10_000]]})
    with pytest.raises(ExperimentError, match="share layer 'default' but differ in unit"):
        refuse_conflicts([one, other])


@pytest.mark.parametrize("states", [("running", "running"), ("running", "paused"), ("paused", "paused")])
def test_a_holdout_has_one_share_over_all_live_experiments_that_name_it(
    experiment: Callable[..., Experiment], states: tuple[str, str]
):
    one = experiment(state=states[0], holdout={"name": "h", "bp": 500})
    other = experiment(experiment="f", model="another", state=states[1], holdout={"name": "h", "bp": 501})
    with pytest.raises(ExperimentError, match="'e' holds 500 bp out as 'h'") as caught:
        refuse_conflicts([one, other])
    assert caught.value.key == "holdout.bp"


@pytest.mark.parametrize(
    "change",
    [
        {"holdout": {"name": "h", "bp": 500}},
        {"holdout": {"name": "g", "bp": 501}},
        {"holdout": None},
        {"holdout": {"name": "h", "bp": 501}, "state": "draft"},
        {"holdout": {"name": "h", "bp": 501}, "state": "concluded"},
    ],
)
def test_holdouts_that_mean_one_set_of_units_or_two_are_no_conflict(
    experiment: Callable[..., Experiment], change: dict[str, Any]
):
    refuse_conflicts(
        [experiment(holdout={"name": "h", "bp": 500}), experiment(**{"experiment": "f", "model": "another"} | change)]
    )


def test_a_conflict_among_many_is_found_wherever_it_stands(experiment: Callable[..., Experiment]):
    apart = [
        experiment(experiment=f"e{i}", layer={"name": "page", "slots": [[i * 100, i * 100 + 100]]}) for i in range(100)
    ]
    refuse_conflicts(apart)
    for place in (0, 50, 100):
        late = experiment(experiment="late", layer={"name": "page", "slots": [[9_950, 9_951]]})
        with pytest.raises(ExperimentError, match="overlap in layer 'page'"):
            refuse_conflicts([*apart[:place], late, *apart[place:]])
