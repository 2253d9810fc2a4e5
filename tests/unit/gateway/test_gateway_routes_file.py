import pytest

from gateway.configuration.experiments_file import read_experiments
from gateway.routes_file import read_routes
from settings import ConfigurationError

GOOD = """\
models:
  churn:
    unit: user
    deadline_ms: 100
    default_version: "1"
    versions:
      "1": {workers: ["http://127.0.0.1:8091"]}
      "2":
        workers:
          - http://a.example:1
          - http://[::1]:8092/
    fallback: {version: "1", value: 0.5}
    on_missing: {profile: fail}
    request_overrides: ["profile:age"]
    limits: {instances_max: 10}
"""

EXPERIMENT = """\
experiment: first
model: churn
unit: user
state: running
variants:
  - {name: a, version: "1", bp: 5000}
  - {name: b, version: "2", bp: 5000}
"""


def written(tmp_path, content: str, name: str = "models.yaml"):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    return path


def test_a_good_file_is_read_with_its_defaults(tmp_path):
    route = read_routes(written(tmp_path, GOOD)).models["churn"]
    assert route.versions["2"].workers == ("http://a.example:1", "http://[::1]:8092/")
    assert (route.deadline_ms, route.limits.instances_max, route.limits.body_bytes_max) == (100, 10, 1 << 20)
    assert (route.allow_forced_variant, route.allow_missing_unit) == (False, False)


def test_a_worker_may_speak_tls(tmp_path):
    content = GOOD.replace("http://a.example:1", "https://a.example:1")
    assert read_routes(written(tmp_path, content)).models["churn"].versions["2"].workers[0] == "https://a.example:1"


WRONG = {
    "a default version that is none": ('default_version: "1"', 'default_version: "9"', 5, "not one of `versions`"),
    "a fallback version that is none": ('{version: "1", value: 0.5}', '{version: "9"}', 12, "not one of `versions`"),
    "a deadline of zero": ("deadline_ms: 100", "deadline_ms: 0", 4, ">= 1"),
    "a deadline that is text": ("deadline_ms: 100", "deadline_ms: soon", 4, "int"),
    "a deadline of an hour": ("deadline_ms: 100", "deadline_ms: 3600000", 4, "60000"),
    "an unknown key": ("deadline_ms: 100", "deadline: 100", 4, "deadline"),
    "a worker that is no URL": ("http://a.example:1", "a.example:1", 10, "http://host:port"),
    "a worker without a port": ("http://a.example:1", "http://a.example", 10, "http://host:port"),
    "a worker of another scheme": ("http://a.example:1", "grpc://a.example:1", 10, "http://host:port"),
    "a worker at port 0": ("http://a.example:1", "http://a.example:0", 10, "http://host:port"),
    "a worker with a path": ("http://a.example:1", "http://a.example:1/v2", 10, "http://host:port"),
    "a worker whose port is none": ("http://a.example:1", "http://a.example:99999", 10, "http://host:port"),
    "a worker with a password": ("http://a.example:1", "http://u:p@a.example:1", 10, "http://host:port"),
    "an on_missing that is neither": ("{profile: fail}", "{profile: maybe}", 13, "maybe"),
    "an override that is no reference": ("profile:age", "age", 14, "pattern|match"),
    "more instances than any route may take": ("instances_max: 10", "instances_max: 100001", 15, "100000"),
    "a fallback value that is not a number": ("value: 0.5", "value: .nan", 12, "finite"),
    "a fallback value without end": ("value: 0.5", "value: {score: .inf}", 12, "finite"),
}


@pytest.mark.parametrize("claim", WRONG)
def test_a_wrong_file_is_refused_with_its_line_and_what_was_expected(tmp_path, claim):
    old, new, line, expected = WRONG[claim]
    assert GOOD.count(old) == 1
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ConfigurationError, match=expected) as refused:
        read_routes(path)
    assert (refused.value.path, refused.value.line) == (path, line), str(refused.value)


@pytest.mark.parametrize(
    "content", ["", "models: {}", "models: []", "[]", "models: {m: {}}", "models:\n\t- x", "a: &a [*a]"]
)
def test_a_file_that_is_no_routes_file_is_refused(tmp_path, content):
    with pytest.raises(ConfigurationError):
        read_routes(written(tmp_path, content))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_routes(tmp_path / "nothing.yaml")


def test_experiments_are_read_from_a_file_or_a_directory_in_the_order_of_their_names(tmp_path):
    routes = read_routes(written(tmp_path, GOOD)).models
    second = EXPERIMENT.replace("first", "before").replace("state: running", "state: draft")
    folder = tmp_path / "experiments"
    folder.mkdir()
    written(folder, EXPERIMENT, "z.yaml")
    written(folder, second, "a.yml")
    written(folder, "not: one", "notes.txt")
    assert [e.name for e in read_experiments(folder, routes)["churn"]] == ["before", "first"]
    both = written(tmp_path, f"{EXPERIMENT}---\n{second}", "both.yaml")
    assert [e.name for e in read_experiments(both, routes)["churn"]] == ["before", "first"]
    assert read_experiments(None, routes) == {}


WRONG_EXPERIMENTS = {
    "a model without a route": ("model: churn", "model: other", 2, "no route"),
    "another unit than the route's": ("unit: user", "unit: item", 3, "splits by 'user'"),
    "a version that is not routed": ('version: "2"', 'version: "3"', 7, "not routed"),
    "shares that do not add up": ('version: "2", bp: 5000', 'version: "2", bp: 4000', 5, "9000"),
    "a condition that is none": ("state: running", "state: running\nwhere: import os", 5, "where"),
}


@pytest.mark.parametrize("claim", WRONG_EXPERIMENTS)
def test_a_wrong_experiment_is_refused_with_its_line(tmp_path, claim):
    old, new, line, expected = WRONG_EXPERIMENTS[claim]
    routes = read_routes(written(tmp_path, GOOD)).models
    path = written(tmp_path, EXPERIMENT.replace(old, new, 1), "experiments.yaml")
    with pytest.raises(ConfigurationError, match=expected) as refused:
        read_experiments(path, routes)
    assert (refused.value.path, refused.value.line) == (path, line), str(refused.value)


@pytest.mark.parametrize("state", ["draft", "paused", "concluded"])
def test_an_experiment_that_is_not_running_may_name_a_version_that_is_not_routed(tmp_path, state):
    routes = read_routes(written(tmp_path, GOOD)).models
    content = EXPERIMENT.replace('version: "2"', 'version: "3"').replace("running", state)
    assert len(read_experiments(written(tmp_path, content, "experiments.yaml"), routes)["churn"]) == 1


def test_two_experiments_that_overlap_are_refused(tmp_path):
    routes = read_routes(written(tmp_path, GOOD)).models
    path = written(tmp_path, f"{EXPERIMENT}---\n{EXPERIMENT.replace('first', 'second')}", "experiments.yaml")
    with pytest.raises(ConfigurationError, match="overlap"):
        read_experiments(path, routes)


def test_an_experiments_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_experiments(tmp_path / "nothing.yaml", read_routes(written(tmp_path, GOOD)).models)
