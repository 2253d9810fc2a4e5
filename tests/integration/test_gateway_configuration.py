"""The configuration outlives its sources, and changes while requests are answered. Real processes."""

import asyncio
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from feature_store import EmbeddedRedis
from tests.integration.gateway_client import Client, Reply, until
from tests.integration.gateway_models import load_features
from tests.integration.gateway_stack import Gateway, Stack, lines_of_errors

pytestmark = pytest.mark.integration

ROUTES = """\
models:
  ranking:
    unit: user
    deadline_ms: 2000
    default_version: "1"
    versions:
      "1": {{workers: ["http://127.0.0.1:{a}"]}}
"""

SECOND = """\
      "2": {{workers: ["http://localhost:{b}"]}}
"""

ALL_TO_SECOND = """\
experiment: all
model: ranking
unit: user
state: running
variants:
  - {{name: only, version: "2", bp: 10000}}
"""

WHO = {"x-sekisho-actor": "ana", "x-sekisho-reason": "a test"}
ASKED = {"entities": {"user": "u1", "item": "i3"}}
BASKET = {"entities": {"user": "u1"}, "features": {"hour": 4}}


class Callers:
    """Asks for predictions all the time, on several connections, and keeps what came."""

    def __init__(self, gateway: Gateway, threads: int = 4) -> None:
        self._gateway = gateway
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        self.wrong: list[str] = []
        self.versions: list[str] = []

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        until("requests are answered", lambda: len(self.versions) > 20)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(20)

    def answered_by(self, version: str) -> None:
        """Wait until a request that began only now was answered by a version."""
        seen = len(self.versions)
        until(f"version {version} answers", lambda: version in self.versions[seen + 8 :])

    def _run(self) -> None:
        with self._gateway.client() as client:
            while not self._stopping.is_set():
                try:
                    reply = client.predict("ranking", ASKED)
                    if reply.status != 200 or reply.json["degraded"]:
                        self.wrong.append(f"{reply.status} {reply.body[:300]!r}")
                    else:
                        self.versions.append(reply.json["version"])
                except Exception as error:  # noqa: BLE001 - whatever a caller sees is wrong
                    self.wrong.append(repr(error))
                    return


class Place:
    """A gateway with files and a state directory of its own, beside the stack's other ones."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self.stack, self.directory = stack, directory
        self.redis_url = stack.redis.url
        self.flags: tuple[str, ...] = ()
        self.expected_errors: tuple[str, ...] = ()

    def write(self, content: str, name: str = "models.yaml") -> None:
        """Replace a file as a careful writer does."""
        temporary = self.directory / f"{name}.new"
        temporary.write_text(content.format(**self.stack.worker_ports), encoding="utf-8")
        temporary.replace(self.directory / name)

    def files_in_state(self) -> list[str]:
        """Name what lies in the state directory."""
        state = self.directory / "state"
        return sorted(str(path.relative_to(state)) for path in state.rglob("*") if path.is_file())

    @contextmanager
    def gateway(self, *, wait: bool = True) -> Iterator[Gateway]:
        """Run a gateway."""
        flags = ["--config", str(self.directory / "models.yaml"), "--state-dir", str(self.directory / "state")]
        experiments = self.directory / "experiments.yaml"
        experiments.touch()
        flags += ["--experiments", str(experiments), "--redis", self.redis_url, "--shutdown-grace-s", "0", *self.flags]
        gateway = self.stack.start_gateway(*flags, wait=False)
        try:
            until("it answers its admin port", lambda: is_up(gateway))
            if wait:
                until("it is ready", lambda: is_ready(gateway))
            yield gateway
        finally:
            gateway.child.stop()
        errors = lines_of_errors(gateway.child.log_file)
        assert [line for line in errors if not any(words in line for words in self.expected_errors)] == []


@pytest.fixture
def place(stack: Stack, tmp_path: Path) -> Place:
    return Place(stack, tmp_path)


def change(gateway: Gateway, method: str, path: str, content: Any = None, who: dict[str, str] = WHO) -> Reply:
    with Client(gateway.admin_port, 30) as client:
        body = None if content is None else json.dumps(content).encode()
        return client.ask(method, f"/admin/v1/models/{path}", body, {"content-type": "application/json", **who})


def is_up(gateway: Gateway) -> bool:
    assert gateway.child.ended() is None, gateway.child.last_lines(20)
    try:
        return gateway.admin("/healthz")["status"] == "ok"
    except OSError:
        return False


def is_ready(gateway: Gateway) -> bool:
    return gateway.admin("/readyz")["status"] == "ok"


def told(gateway: Gateway) -> dict[str, Any]:
    return gateway.admin("/admin/v1/status")["configuration"]


def versions_of(gateway: Gateway, model: str = "ranking") -> list[str]:
    with gateway.client() as client:
        return client.ask("GET", f"/v1/models/{model}").json["versions"]


def worker(stack: Stack, name: str) -> dict[str, Any]:
    return {"workers": [f"http://127.0.0.1:{stack.worker_ports[name]}"]}


# What outlives a restart ---------------------------------------------------------------------------------------------


def test_a_gateway_that_has_seen_its_views_starts_without_redis_serves_with_defaults_and_heals(place, stack, tmp_path):
    place.write(ROUTES)
    with EmbeddedRedis(tmp_path / "r") as redis:
        place.redis_url = redis.url
        load(redis, stack)
        with place.gateway() as gateway, gateway.client() as client:
            assert client.predict("ranking", ASKED).json["degraded"] == []
    with place.gateway() as gateway, gateway.client() as client:
        reply = client.predict("ranking", ASKED)
        assert (reply.status, reply.json["version"]) == (200, "1")
        assert sorted(reply.json["degraded"]) == ["feature_default:item_stats", "feature_default:user_profile"]
        assert told(gateway)["views"]["from_disk"] is True
        assert 'sekisho_configuration_from_disk{source="views"} 1.0' in gateway.metrics()
        assert 'sekisho_configuration_problem{source="views"} 1.0' in gateway.metrics()
        with EmbeddedRedis(tmp_path / "r") as redis:
            load(redis, stack)
            until("it is healed", lambda: client.predict("ranking", ASKED).json["degraded"] == [])
            until("the views are Redis's own", lambda: told(gateway)["views"]["from_disk"] is False)
            assert 'sekisho_configuration_problem{source="views"} 0.0' in gateway.metrics()


def load(redis: EmbeddedRedis, stack: Stack) -> None:
    asyncio.run(load_features(redis.url, stack.directory / "features.yaml", stack.stored))


def test_a_corrupt_state_directory_stops_nothing(place):
    place.write(ROUTES)
    state = place.directory / "state"
    for name in ("views.json", "signatures/ranking/1.json", "routes/ranking.json"):
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_bytes(b"\0{garbage")
    with place.gateway() as gateway, gateway.client() as client:
        assert client.predict("ranking", ASKED).json["degraded"] == []
        assert gateway.child.last_lines(200).count("a state file is ignored") >= 1
        until("the good ones take their place", lambda: (state / "views.json").read_bytes().startswith(b"{"))


def test_a_state_directory_that_takes_nothing_stops_only_what_must_be_kept(place, stack):
    place.write(ROUTES)
    (place.directory / "state").write_bytes(b"a file")
    with place.gateway() as gateway, gateway.client() as client:
        assert client.predict("ranking", ASKED).status == 200
        reply = change(gateway, "PUT", "ranking/versions/2", worker(stack, "b"))
        assert (reply.status, reply.json["code"]) == (503, "change_not_kept")
        assert versions_of(gateway) == ["1"]
        assert "state" in told(gateway)["state"]["problem"]


def test_a_worker_that_is_away_at_the_start_is_stood_in_for_by_its_last_signature(place):
    place.write(ROUTES + "    fallback: {{value: 0.25}}\n")
    with place.gateway():
        assert "signatures/ranking/1.json" in place.files_in_state()
    ports = dict(place.stack.worker_ports)
    place.write((ROUTES + "    fallback: {{value: 0.25}}\n").replace("{a}", "9"))
    with place.gateway(wait=False) as gateway, gateway.client() as client:
        until("the signature is taken from disk", lambda: told(gateway)["signatures_from_disk"] == 1)
        answer = until("a fixed score is given", lambda: answered(client)).json
        assert (answer["predictions"], answer["degraded"]) == ([0.25], ["static_score"])
        refused = client.predict("ranking", {"entities": {"planet": "x"}})
        assert (refused.status, refused.json["code"]) == (422, "unknown_entity"), "names are known from it"
    assert ports == place.stack.worker_ports


def answered(client: Client) -> Reply | None:
    reply = client.predict("ranking", ASKED)
    return reply if reply.status == 200 else None


# Reload --------------------------------------------------------------------------------------------------------------


def test_a_changed_file_is_applied_without_a_lost_request_and_a_wrong_one_is_refused(place):
    place.write(ROUTES)
    place.expected_errors = ("the configuration's files are refused",)
    with place.gateway() as gateway, Callers(gateway) as callers:
        before = told(gateway)["revision"]
        place.write((ROUTES + SECOND + "    limits: {{instances_max: 2}}\n").replace('"1"', '"2"', 1))
        callers.answered_by("2")
        assert versions_of(gateway) == ["1", "2"]
        assert told(gateway)["revision"] != before
        with gateway.client() as client:
            assert client.predict("ranking", {**ASKED, "instances": [{}] * 3}).status == 413
        place.write(ROUTES.replace("2000", "0"))
        until("it is refused", lambda: told(gateway)["files"]["problem"])
        assert "models.yaml:4: " in told(gateway)["files"]["problem"]
        assert 'sekisho_configuration_problem{source="files"} 1.0' in gateway.metrics()
        callers.answered_by("2")
        place.write(ROUTES)
        callers.answered_by("1")
        until("the refused file is forgotten", lambda: told(gateway)["files"]["problem"] is None)
    assert callers.wrong == []
    assert {"1", "2"} == set(callers.versions)


def test_a_model_is_added_and_removed_without_a_restart(place):
    first, model = ROUTES.split("  ranking:\n")
    basket = f"{first}  basket:\n{model}"
    place.write(ROUTES)
    with place.gateway() as gateway, gateway.client() as client, Callers(gateway) as callers:
        assert client.predict("basket", BASKET).status == 404
        place.write(ROUTES + basket.partition("models:\n")[2])
        until("it is served", lambda: client.predict("basket", BASKET).status == 200)
        place.write(ROUTES)
        until("it is gone", lambda: client.predict("basket", BASKET).status == 404)
    assert callers.wrong == []


def test_a_wrong_file_at_the_start_ends_the_program_with_file_and_line(place, stack):
    place.write(ROUTES.replace("2000", "0"))
    flags = ["--config", str(place.directory / "models.yaml"), "--state-dir", str(place.directory / "state")]
    gateway = stack.start_gateway(*flags, wait=False)
    until("it has ended", gateway.child.ended)
    assert gateway.child.ended() == "exit code 2"
    assert "models.yaml:4: " in gateway.child.last_lines()


def test_an_experiment_that_is_changed_is_drawn_as_the_file_says(place):
    place.write(ROUTES + SECOND)
    with place.gateway() as gateway, Callers(gateway) as callers:
        callers.answered_by("1")
        place.write(ALL_TO_SECOND, "experiments.yaml")
        callers.answered_by("2")
        place.write(ALL_TO_SECOND.replace("running", "paused"), "experiments.yaml")
        callers.answered_by("1")
    assert callers.wrong == []


# Run-time changes ----------------------------------------------------------------------------------------------------


def test_versions_come_go_and_become_the_default_under_load_and_nobody_notices(place, stack):
    place.write(ROUTES)
    with place.gateway() as gateway, Callers(gateway) as callers:
        for _ in range(3):
            added = change(gateway, "PUT", "ranking/versions/2", worker(stack, "b"))
            assert (added.status, added.json) == (
                201,
                {"model": "ranking", "version": "2", "ready": True, "problem": None},
            )
            assert change(gateway, "PUT", "ranking/versions/2", worker(stack, "b")).status == 200
            assert change(gateway, "PUT", "ranking/default_version", {"version": "2"}).status == 200
            callers.answered_by("2")
            assert change(gateway, "PUT", "ranking/default_version", {"version": "1"}).status == 200
            callers.answered_by("1")
            removed = change(gateway, "DELETE", "ranking/versions/2")
            assert removed.status == 200
            assert versions_of(gateway) == ["1"]
        seen = len(callers.versions)
        until("more was answered", lambda: len(callers.versions) > seen + 50)
        assert "2" not in callers.versions[seen + 8 :]
    assert callers.wrong == []
    audit = [line for line in map(json.loads, gateway.child.log_file.read_text().splitlines()) if "actor" in line]
    assert len(audit) == 15
    assert {(line["actor"], line["reason"]) for line in audit} == {("ana", "a test")}


def test_what_is_in_use_is_not_removed_and_what_cannot_answer_is_not_made_the_default(place, stack):
    place.write(ROUTES + SECOND + '    fallback: {{version: "2"}}\n')
    with place.gateway() as gateway:
        refused = change(gateway, "DELETE", "ranking/versions/1")
        assert (refused.status, refused.json["code"]) == (409, "version_in_use")
        assert "the default version" in refused.json["detail"]
        assert "the fallback version" in change(gateway, "DELETE", "ranking/versions/2").json["detail"]
        dead = change(gateway, "PUT", "ranking/versions/3", {"workers": ["http://127.0.0.1:9"]})
        assert (dead.status, dead.json["ready"]) == (201, False)
        assert "reached" in dead.json["problem"]
        flipped = change(gateway, "PUT", "ranking/default_version", {"version": "3"})
        assert (flipped.status, flipped.json["code"]) == (409, "version_not_ready")
        unknown = change(gateway, "PUT", "ranking/default_version", {"version": "9"})
        assert (unknown.status, unknown.json["code"]) == (404, "unknown_version")
        assert change(gateway, "DELETE", "ranking/versions/3").status == 200
        assert change(gateway, "PUT", "nothing/versions/1", worker(stack, "b")).json["code"] == "unknown_model"


@pytest.mark.parametrize(
    ("path", "content", "who", "status", "field"),
    [
        ("ranking/versions/2", {"workers": ["http://a:1"]}, {}, 422, "x-sekisho-actor"),
        ("ranking/versions/2", {"workers": ["http://a:1"]}, {"x-sekisho-actor": "ana"}, 422, "x-sekisho-reason"),
        ("ranking/versions/2", {"workers": ["a:1"]}, WHO, 422, "workers.0"),
        ("ranking/versions/2", {"workers": []}, WHO, 422, "workers"),
        ("ranking/versions/2", {"workers": ["http://a:1"], "other": 1}, WHO, 422, None),
        ("ranking/versions/..%2Fx", {"workers": ["http://a:1"]}, WHO, 422, "version"),
        ("ranking/versions/%0a", {"workers": ["http://a:1"]}, WHO, 422, "version"),
        ("ranking/default_version", {"version": 3}, WHO, 422, "version"),
    ],
)
def test_a_change_that_is_wrong_is_refused_with_its_field_and_changes_nothing(
    gateway, path, content, who, status, field
):
    before = told(gateway)
    reply = change(gateway, "PUT", path, content, who)
    assert (reply.status, reply.json.get("field")) == (status, field), reply.body
    assert told(gateway)["revision"] == before["revision"]


def test_a_dry_run_answers_and_changes_nothing(place, stack):
    place.write(ROUTES)
    with place.gateway() as gateway:
        before = place.files_in_state()
        assert change(gateway, "PUT", "ranking/versions/2?dry_run=true", worker(stack, "b")).status == 201
        assert change(gateway, "DELETE", "ranking/versions/1?dry_run=true").status == 409
        assert versions_of(gateway) == ["1"]
        assert place.files_in_state() == before


def test_run_time_changes_outlive_a_restart_until_the_file_says_something_else_of_the_model(place, stack):
    place.write(ROUTES)
    with place.gateway() as gateway:
        assert change(gateway, "PUT", "ranking/versions/2", worker(stack, "b")).json["ready"]
        assert change(gateway, "PUT", "ranking/default_version", {"version": "2"}).status == 200
        assert change(gateway, "DELETE", "ranking/versions/1").status == 200
    with place.gateway() as gateway, gateway.client() as client:
        assert client.predict("ranking", ASKED).json["version"] == "2"
        assert versions_of(gateway) == ["2"]
        assert told(gateway)["run_time_changes"] == ["ranking"]
        place.write(ROUTES.replace("2000", "1999"))
        until("the file wins", lambda: client.predict("ranking", ASKED).json["version"] == "1")
        assert told(gateway)["run_time_changes"] == []
        assert "run-time changes are dropped" in gateway.child.last_lines(100)
        assert "routes/ranking.json" not in place.files_in_state()


@pytest.mark.fault
def test_a_change_reaches_every_process_and_those_that_come_later(place, stack):
    place.write(ROUTES)
    place.flags, place.expected_errors = ("--processes", "2"), ("a gateway process ended",)
    with place.gateway(wait=False) as gateway:
        until("both are ready", lambda: is_ready(gateway) and len(gateway.admin("/readyz")["detail"]) == 2)
        with Callers(gateway) as callers:
            assert change(gateway, "PUT", "ranking/versions/2", worker(stack, "b")).status == 201
            assert change(gateway, "PUT", "ranking/default_version", {"version": "2"}).status == 200
            assert defaults(gateway) == {"0": "2", "1": "2"}
            callers.answered_by("2")
            assert change(gateway, "DELETE", "ranking/versions/2").json["code"] == "version_in_use"
            assert change(gateway, "PUT", "ranking/versions/3", {"workers": ["nowhere"]}).status == 422
        assert callers.wrong == []
        victim = gateway.admin("/admin/v1/status")["processes"]["0"]["pid"]
        os.kill(victim, signal.SIGKILL)
        until("another one has taken its place", lambda: victim not in pids(gateway) and len(pids(gateway)) == 2)
        until("it serves what was changed", lambda: defaults(gateway) == {"0": "2", "1": "2"})


def pids(gateway: Gateway) -> list[int]:
    return [process["pid"] for process in gateway.admin("/admin/v1/status")["processes"].values() if "pid" in process]


def defaults(gateway: Gateway) -> dict[str, str]:
    processes = gateway.admin("/admin/v1/status")["processes"].items()
    return {name: told["models"]["ranking"]["default_version"] for name, told in processes if "models" in told}
