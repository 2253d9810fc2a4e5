"""The admin API for experiments on a running gateway: who may change what, made of what, and what is answered."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import duckdb
import pytest

from experiments import assign, parse_experiment
from tests.integration.experiments_admin import EXPERIMENTS, NEW, WHO, Admin, document, experimenting
from tests.integration.gateway_client import Client, Reply, until
from tests.integration.gateway_stack import Gateway, Stack

pytestmark = pytest.mark.integration

PATH = f"{EXPERIMENTS}/halves"
RESULTS_BYTES_MAX = 1024 * 1024


@pytest.fixture(scope="module")
def stored(stack: Stack) -> Gateway:
    return stack.gateway_with_stored_experiments


@pytest.fixture
def admin(stored: Gateway) -> Iterator[Admin]:
    with experimenting(stored.admin_port) as found:
        yield found


def refused(reply: Reply) -> tuple[int, str, str | None]:
    assert reply.headers["content-type"] == "application/problem+json", reply.body
    assert reply.json["status"] == reply.status
    return reply.status, reply.json["code"], reply.json.get("field")


def etag_of(revision: int) -> dict[str, str]:
    return {"if-match": f'"{revision}"'}


# Preconditions -------------------------------------------------------------------------------------------------------


def test_an_experiment_is_made_read_changed_concluded_and_deleted_each_by_what_was_read(admin):
    made = admin.ask("PUT", PATH, document("halves"), NEW)
    assert (made.status, made.headers["etag"]) == (201, f'"{made.json["revision"]}"')
    assert made.json.keys() == {"revision", "epoch", "units_moved_bp", "warnings", "document"}
    assert made.json["units_moved_bp"] == 10_000.0
    read = admin.ask("GET", PATH)
    assert (read.headers["etag"], read.json["revision"]) == (made.headers["etag"], made.json["revision"])
    assert read.json["document"] == made.json["document"]
    changed = admin.ask("PUT", PATH, {**read.json["document"], "enrol_bp": 500}, {"if-match": read.headers["etag"]})
    assert (changed.status, changed.json["units_moved_bp"], changed.json["epoch"]) == (200, 9_500.0, made.json["epoch"])
    assert int(changed.json["revision"]) > int(made.json["revision"])
    concluded = admin.set("halves", state="concluded")
    gone = admin.ask("DELETE", PATH, headers={"if-match": concluded.headers["etag"]})
    assert (gone.status, gone.json["document"], gone.json["epoch"]) == (200, None, None)
    assert "etag" not in gone.headers
    assert refused(admin.ask("GET", PATH)) == (404, "unknown_experiment", None)


@pytest.mark.parametrize(
    ("method", "headers", "answer"),
    [
        ("PUT", {}, (428, "precondition_required", None)),
        ("DELETE", {}, (428, "precondition_required", None)),
        ("PUT", NEW, (412, "precondition_failed", "if-match")),
        ("DELETE", NEW, (412, "precondition_failed", "if-match")),
        ("PUT", etag_of(10**17), (412, "precondition_failed", "if-match")),
        ("DELETE", etag_of(10**17), (412, "precondition_failed", "if-match")),
        ("PUT", {"if-match": "*"}, (422, "invalid_request", "if-match")),
        ("PUT", {"if-match": '"0"'}, (422, "invalid_request", "if-match")),
        ("PUT", {"if-match": '"1", "2"'}, (422, "invalid_request", "if-match")),
        ("PUT", {"if-match": "7"}, (422, "invalid_request", "if-match")),
        ("PUT", {"if-match": '"' + "9" * 400 + '"'}, (422, "invalid_request", "if-match")),
        ("PUT", {"if-none-match": '"1"'}, (422, "invalid_request", "if-none-match")),
        ("PUT", {"if-match": '"1"', "if-none-match": "*"}, (422, "invalid_request", "if-match")),
    ],
)
def test_a_change_that_was_not_made_of_what_there_is_is_refused_and_changes_nothing(admin, method, headers, answer):
    made = admin.create(document("halves"))
    content = document("halves", enrol_bp=5) if method == "PUT" else None
    reply = admin.ask(method, PATH, content, headers)
    assert refused(reply) == answer
    now = admin.ask("GET", PATH).json
    if answer[0] == 412:
        assert reply.json["current"] == now
    assert now["revision"] == made.json["revision"]


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [({}, 428, "precondition_required"), (etag_of(1), 412, "precondition_failed"), ({"if-match": '"0"'}, 422, None)],
)
def test_an_experiment_that_is_not_there_is_made_by_if_none_match_alone(admin, headers, status, code):
    reply = admin.ask("PUT", PATH, document("halves"), headers)
    assert reply.status == status
    if code is not None:
        assert reply.json["code"] == code
    if status == 412:
        assert reply.json["current"] is None
    assert refused(admin.ask("DELETE", PATH, headers={"if-match": '"1"'})) == (404, "unknown_experiment", None)


def test_a_weak_etag_is_one_too(admin):
    etag = admin.create(document("halves")).headers["etag"]
    assert admin.ask("PUT", PATH, document("halves", enrol_bp=5), {"if-match": f"W/{etag}"}).status == 200


def test_a_dry_run_answers_as_the_change_would_and_changes_nothing(admin):
    dry = admin.ask("PUT", f"{PATH}?dry_run=true", document("halves"), NEW)
    assert (dry.status, dry.json["units_moved_bp"], "etag" in dry.headers) == (200, 10_000.0, False)
    assert admin.get(EXPERIMENTS) == {}
    made = admin.create(document("halves"))
    etag = made.headers["etag"]
    before = admin.get("/admin/v1/audit?limit=1")["entries"]
    shifted = document("halves", variants=_variants(4_000, 6_000))
    dry = admin.ask("PUT", f"{PATH}?dry_run=true", shifted, {"if-match": etag})
    assert (dry.status, dry.json["units_moved_bp"], dry.json["epoch"]) == (200, 1_000.0, made.json["epoch"] + 1)
    assert any("carry over" in warning for warning in dry.json["warnings"])
    assert admin.ask("PUT", f"{PATH}?dry_run=1", shifted, etag_of(10**17)).status == 412
    assert admin.ask("DELETE", f"{PATH}?dry_run=true", headers={"if-match": etag}).status == 422
    assert admin.ask("PUT", "/admin/v1/kill-switch?dry_run=true", {"model": "*", "on": True}).json["killed"] == ["*"]
    assert admin.get("/admin/v1/kill-switch")["killed"] == []
    assert (admin.ask("GET", PATH).headers["etag"], admin.get("/admin/v1/audit?limit=1")["entries"]) == (etag, before)


def _variants(control_bp: int, treatment_bp: int) -> list[dict[str, Any]]:
    return [
        {"name": "control", "version": "1", "bp": control_bp},
        {"name": "treatment", "version": "2", "bp": treatment_bp},
    ]


# Who and why ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "field"),
    [
        ({}, "x-sekisho-actor"),
        ({"x-sekisho-actor": "ana"}, "x-sekisho-reason"),
        ({"x-sekisho-reason": "a test"}, "x-sekisho-actor"),
        ({**WHO, "x-sekisho-actor": ""}, "x-sekisho-actor"),
        ({**WHO, "x-sekisho-reason": "r" * 257}, "x-sekisho-reason"),
        ({**WHO, "x-sekisho-reason": "a\tb"}, "x-sekisho-reason"),
    ],
)
def test_a_change_without_a_name_or_a_reason_is_refused(admin, who, field):
    nameless = Admin(admin.port, who)
    for method, path, content in (
        ("PUT", PATH, document("halves")),
        ("DELETE", PATH, None),
        ("PUT", "/admin/v1/kill-switch", {"model": "*", "on": True}),
        ("PUT", f"{PATH}/results", {}),
    ):
        assert refused(nameless.ask(method, path, content, NEW)) == (422, "invalid_request", field)
    assert admin.get(EXPERIMENTS) == {}


# Documents -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"model": "nothing"}, "model"),
        ({"unit": "item"}, "unit"),
        ({"variants": [{"name": "control", "version": "9", "bp": 10_000}]}, "variants[0].version"),
        ({"shadow": {"version": "9"}}, "shadow.version"),
        ({"experiment": "other"}, "experiment"),
        ({"variants": _variants(5_000, 5_001)}, "variants"),
        ({"where": "country ="}, "where"),
        ({"guardrails": [{"metric": "fun", "max_abs_increase": 1}]}, "guardrails[0].metric"),
        ({"state": "concluded", "winner": "nobody"}, "winner"),
    ],
)
def test_a_document_that_is_wrong_is_refused_with_the_key_at_fault(admin, changed, field):
    assert refused(admin.ask("PUT", PATH, document("halves", **changed), NEW)) == (422, "invalid_request", field)


def test_a_draft_may_be_of_a_version_that_is_still_to_come_and_does_not_start_before_it(admin):
    admin.create(document("halves", state="draft", shadow={"version": "9"}))
    reply = admin.try_to_change("halves", lambda document: {**document, "state": "running"})
    assert refused(reply) == (422, "invalid_request", "shadow.version")


def test_two_that_run_do_not_share_a_slot(admin):
    admin.create(document("halves"))
    assert refused(admin.ask("PUT", f"{EXPERIMENTS}/other", document("other"), NEW)) == (
        422,
        "invalid_request",
        "layer",
    )


def test_a_body_that_is_not_said_to_be_json_is_refused(admin):
    reply = admin.ask("PUT", PATH, document("halves"), {**NEW, "content-type": "text/yaml"})
    assert refused(reply) == (415, "unsupported_media_type", "content-type")


@pytest.mark.parametrize("state", ["running", "paused"])
def test_what_runs_or_is_paused_is_not_deleted(admin, state):
    etag = admin.create(document("halves")).headers["etag"]
    if state == "paused":
        etag = admin.set("halves", state="paused").headers["etag"]
    reply = admin.ask("DELETE", PATH, headers={"if-match": etag})
    assert refused(reply) == (422, "invalid_request", "state")


# What is served ------------------------------------------------------------------------------------------------------


def served(client: Client, user: str = "u1") -> tuple[str, str | None]:
    answer = client.predict("ranking", {"entities": {"user": user, "item": "i1"}}).json
    return answer["version"], answer["variant"]


def test_a_change_is_served_by_as_soon_as_it_is_answered(admin, stored):
    with stored.client() as client:
        assert served(client) == ("1", None)
        admin.create(document("halves", overrides={"u1": "treatment"}))
        assert served(client) == ("2", "treatment")
        admin.set("halves", overrides={"u1": "control"})
        assert served(client) == ("1", "control")
        admin.set("halves", state="paused")
        assert served(client) == ("1", None)
        admin.set("halves", state="concluded", winner="treatment")
        assert served(client, "u7") == ("2", "treatment")


@pytest.mark.parametrize("model", ["ranking", "*"])
def test_the_kill_switch_sends_everybody_to_the_default_version_and_back(admin, stored, model):
    admin.create(document("halves", overrides={"u1": "treatment"}))
    with stored.client() as client:
        killed = admin.ask("PUT", "/admin/v1/kill-switch", {"model": model, "on": True})
        assert (killed.status, killed.json["killed"]) == (200, [model])
        assert killed.json["warnings"] == ["all units of halves get the default version"]
        assert served(client) == ("1", None)
        assert admin.get("/admin/v1/kill-switch")["killed"] == [model]
        assert admin.status()["killed"] == [model]
        serves = admin.get("/admin/v1/explain?unit=u1")["serves"]
        assert serves == {"ranking": {"experiment": None, "variant": None, "version": None, "reason": "killed"}}
        assert admin.ask("PUT", "/admin/v1/kill-switch", {"model": model, "on": False}).json["killed"] == []
        assert served(client) == ("2", "treatment")
    actions = [entry["action"] for entry in admin.get("/admin/v1/audit?limit=2")["entries"]]
    assert actions == ["unkill", "kill"]


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        ({"model": "nothing", "on": True}, (404, "unknown_model", None)),
        ({"model": "*"}, (422, "invalid_request", None)),
        ({"model": "*", "on": 1}, (422, "invalid_request", "on")),
        ({"model": "*", "on": True, "forever": True}, (422, "invalid_request", None)),
        ([], (422, "invalid_request", None)),
        (b"{", (400, "malformed_request", None)),
    ],
)
def test_a_kill_switch_that_says_something_else_is_refused(admin, content, answer):
    assert refused(admin.ask("PUT", "/admin/v1/kill-switch", content)) == answer


# Explanations --------------------------------------------------------------------------------------------------------


def test_a_units_decision_is_explained_by_the_numbers_that_its_rows_are_logged_with(admin, stored):
    admin.create(
        document(
            "basket-halves",
            model="basket",
            where="country == 'JP'",
            enrol_bp=7_000,
            overrides={"u3": "treatment"},
            layer={"name": "shared", "slots": [[0, 8_000]]},
            holdout={"name": "kept-out", "bp": 1_000},
        )
    )
    expected = {}
    with stored.client() as client:
        for n in range(60):
            country = "JP" if n % 5 else "DE"
            answer = client.predict(
                "basket", {"entities": {"user": f"u{n}"}, "features": {"hour": n, "country": country}}
            ).json
            attributes = quote(json.dumps({"country": country}))
            page = f"{EXPERIMENTS}/basket-halves/explain?unit=u{n}&attributes={attributes}"
            expected[answer["prediction_id"]] = admin.get(page)
    stored.wait_for_log()
    columns = "experiment, variant_assigned, version, enrol_bucket, split_bucket, revision, assignment_probability"
    files = f"{stored.log_directory}/predictions/model=basket/**/*.parquet"
    rows = duckdb.sql(f"SELECT prediction_id, {columns} FROM read_parquet('{files}', union_by_name=true)").fetchall()
    logged = {row[0]: row[1:] for row in rows if row[0] in expected}
    assert len(logged) == 60
    reasons = set()
    for prediction_id, told in expected.items():
        experiment, variant, version, enrol_bucket, split_bucket, revision, probability = logged[prediction_id]
        reasons.add(told["reason"])
        assert variant == told["variant"]
        assert version == (told["version"] or "1")
        assert (enrol_bucket, split_bucket) == (told["enrol_bucket"], told["split_bucket"])
        assert (probability is not None) == told["enrolled"]
        if experiment is not None:
            assert (experiment, revision) == ("basket-halves", told["revision"])
    assert reasons == {"split", "override", "not_targeted", "held_out", "other_slot", "not_enrolled"}


def test_every_experiments_decision_is_explained_and_which_one_serves(admin):
    admin.create(document("first", layer={"name": "l", "slots": [[0, 5_000]]}))
    admin.create(document("second", layer={"name": "l", "slots": [[5_000, 10_000]]}))
    admin.create(document("third", model="basket", state="draft"))
    told = admin.get("/admin/v1/explain?unit=u1")
    assert [(d["experiment"], d["model"]) for d in told["decisions"]] == [
        ("first", "ranking"),
        ("second", "ranking"),
        ("third", "basket"),
    ]
    assert all(d["epoch"] == admin.get(f"{EXPERIMENTS}/{d['experiment']}")["epoch"] for d in told["decisions"])
    by_name = {d["experiment"]: d for d in told["decisions"]}
    assert by_name["third"]["reason"] == "not_running"
    (drawn,) = [d for d in told["decisions"] if d["variant"] is not None]
    assert told["serves"]["ranking"] == {
        "experiment": drawn["experiment"],
        "variant": drawn["variant"],
        "version": drawn["version"],
        "reason": "split",
    }
    assert told["serves"]["basket"]["variant"] is None
    only = admin.get("/admin/v1/explain?unit=u1&model=basket")
    assert [d["experiment"] for d in only["decisions"]] == ["third"]
    for name in ("first", "second"):
        alone = admin.get(f"{EXPERIMENTS}/{name}/explain?unit=u1")
        assert alone.items() <= by_name[name].items()
        experiment = parse_experiment(admin.get(f"{EXPERIMENTS}/{name}")["document"])
        assert assign((experiment,), "u1", {"user": "u1"}).enrol_bucket == alone["enrol_bucket"]


@pytest.mark.parametrize(
    "query",
    [
        "",
        "unit=",
        f"unit={'u' * 257}",
        "unit=u&attributes=[]",
        "unit=u&attributes={",
        "unit=u&attributes=" + quote('{"a": 1e999}'),
        "unit=u&attributes=" + "[" * 8_000,
        "unit=u&attributes=" + "a" * 8_193,
    ],
)
def test_a_question_that_cannot_be_explained_is_refused(admin, query):
    admin.create(document("halves"))
    for page in (f"{PATH}/explain", "/admin/v1/explain"):
        assert refused(admin.ask("GET", f"{page}?{query}"))[:2] == (422, "invalid_request")


@pytest.mark.parametrize("page", ["", "/explain?unit=u1", "/guardrails", "/results"])
def test_an_experiment_that_is_not_there_is_told_with_those_that_are(admin, page):
    admin.create(document("halves"))
    reply = admin.ask("GET", f"{EXPERIMENTS}/nothing{page}")
    assert refused(reply) == (404, "unknown_experiment", None)
    assert reply.json["detail"].endswith("there are: halves")


# The audit trail -----------------------------------------------------------------------------------------------------


def test_the_audit_trail_is_told_page_by_page_and_of_one_experiment(admin):
    admin.create(document("halves", state="draft"))
    admin.create(document("other", state="draft"))
    for enrol_bp in range(1, 6):
        admin.set("halves", enrol_bp=enrol_bp)
        admin.set("other", enrol_bp=enrol_bp)
    found: list[dict[str, Any]] = []
    before, pages = "", 0
    while len(found) < 6:
        page = admin.get(f"/admin/v1/audit?experiment=halves&limit=4{before}")
        found += page["entries"]
        before, pages = f"&before={page['next']}", pages + 1
        assert len(page["entries"]) == 4
    assert pages == 2
    own = found[:6]
    assert {entry["experiment"] for entry in own} == {"halves"}
    assert [entry["after"].get("enrol_bp") for entry in own] == [5, 4, 3, 2, 1, None]
    assert [entry["before"] and entry["before"].get("enrol_bp") for entry in own] == [4, 3, 2, 1, None, None]
    ids = [entry["id"] for entry in found]
    assert len(set(ids)) == len(ids)
    newest = admin.get("/admin/v1/audit?limit=1")
    assert [entry["experiment"] for entry in newest["entries"]] == ["other"]
    assert newest["next"] == newest["entries"][0]["id"]
    known = {"id", "at", "actor", "reason", "action", "experiment", "revision", "epoch", "units_moved_bp"}
    assert newest["entries"][0].keys() == {*known, "before", "after"}
    assert (own[0]["actor"], own[0]["reason"], own[0]["action"]) == ("ana", "a test", "put")


def test_the_end_of_the_audit_trail_says_so(admin):
    admin.create(document("halves", state="draft"))
    entries = admin.get("/admin/v1/audit?limit=1000")
    oldest = entries["entries"][-1]["id"]
    if entries["next"] is None:
        assert admin.get(f"/admin/v1/audit?before={oldest}") == {"entries": [], "next": None}
    assert admin.get("/admin/v1/audit?experiment=never-there") == {"entries": [], "next": None}


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "before=1", "before=" + "9" * 20 + "-0", f"experiment={'x' * 129}"]
)
def test_an_audit_page_that_there_cannot_be_is_refused(admin, query):
    assert refused(admin.ask("GET", f"/admin/v1/audit?{query}"))[:2] == (422, "invalid_request")


# Results and guardrails ----------------------------------------------------------------------------------------------


def test_results_are_published_and_read_as_they_came(admin):
    admin.create(document("halves"))
    assert refused(admin.ask("GET", f"{PATH}/results")) == (404, "no_results", None)
    assert "sekisho-experiments results halves" in admin.ask("GET", f"{PATH}/results").json["detail"]
    for results in ({"lift": 0.25, "名": [1, None]}, {"lift": 0.5}):
        published = admin.ask("PUT", f"{PATH}/results", results)
        assert (published.status, published.json["actor"], published.json["results"]) == (200, "ana", results)
        assert admin.get(f"{PATH}/results") == published.json


def test_results_have_a_mebibyte_and_no_more(admin):
    admin.create(document("halves"))
    most = b'{"a":"%b"}' % (b"x" * (RESULTS_BYTES_MAX - 8))
    assert len(most) == RESULTS_BYTES_MAX
    assert admin.ask("PUT", f"{PATH}/results", most).status == 200
    assert refused(admin.ask("PUT", f"{PATH}/results", most + b" "))[:2] == (413, "body_too_large")
    assert len(admin.get(f"{PATH}/results")["results"]["a"]) == RESULTS_BYTES_MAX - 8


@pytest.mark.parametrize(("content", "status"), [(b"[1]", 422), (b"{", 400), (b"\xff", 400), (b'{"a": NaN}', 400)])
def test_results_that_are_no_object_are_refused(admin, content, status):
    admin.create(document("halves"))
    assert admin.ask("PUT", f"{PATH}/results", content).status == status
    assert admin.ask("PUT", f"{EXPERIMENTS}/nothing/results", {}).status == 404


def test_guardrails_tell_what_each_arm_came_to_and_how_each_stands(admin, stored):
    made = admin.create(document("halves", guardrails=[{"metric": "error_rate", "max_abs_increase": 0.01}]))
    with stored.client() as client:
        for n in range(40):
            assert client.predict("ranking", {"entities": {"user": f"u{n}", "item": "i1"}}).status == 200

    def told() -> Any:
        page = admin.get(f"{PATH}/guardrails")
        return page if sum(arm["requests"] for arm in page["arms"].values()) == 40 else None

    page = until("all requests are counted", told)
    assert (page["experiment"], page["epoch"]) == ("halves", made.json["epoch"])
    assert (page["enrol_bp"], page["alpha"]) == (10_000, 0.05)
    assert all(arm["errors"] == 0 and 0 < arm["p50_ms"] <= arm["p99_ms"] for arm in page["arms"].values())
    (finding,) = page["findings"]
    assert (finding["metric"], finding["variant"], finding["action"]) == ("error_rate", "treatment", "rollback")
    assert (finding["breached"], finding["requests"]) == (False, page["arms"]["treatment"]["requests"])


# Experiments from files ----------------------------------------------------------------------------------------------


def test_where_experiments_come_from_files_they_are_read_and_every_write_says_where_to_make_it(gateway):
    files = Admin(gateway.admin_port)
    listed = files.ask("GET", EXPERIMENTS)
    assert (listed.headers["etag"], set(listed.json)) == ('"0"', {"ranking-lightgbm", "basket-in-japan"})
    path = f"{EXPERIMENTS}/ranking-lightgbm"
    etag = files.ask("GET", path).headers["etag"]
    for method, asked, content in (
        ("PUT", path, listed.json["ranking-lightgbm"]["document"]),
        ("PUT", f"{path}?dry_run=true", listed.json["ranking-lightgbm"]["document"]),
        ("DELETE", path, None),
        ("PUT", f"{path}/results", {}),
        ("PUT", "/admin/v1/kill-switch", {"model": "*", "on": True}),
        ("GET", f"{path}/results", None),
        ("GET", f"{path}/guardrails", None),
        ("GET", "/admin/v1/audit", None),
    ):
        reply = files.ask(method, asked, content, {"if-match": etag})
        assert refused(reply) == (409, "experiments_from_files", None), asked
    assert files.get(f"{path}/explain?unit=u1")["enrolled"]
    assert files.get("/admin/v1/explain?unit=u1")["serves"]["ranking"]["experiment"] == "ranking-lightgbm"
    assert files.status() == {"source": "files", "revision": 0, "killed": [], "problem": None}
