"""The admin API for experiments, call by call."""

import json
from collections.abc import Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from experiments_cli.admin_answers import (
    AuditEntry,
    AuditPage,
    ExperimentsStatus,
    Explanation,
    Guardrails,
    Held,
    KillSwitch,
    Status,
)
from experiments_cli.admin_http import AdminHttp, Answer
from experiments_cli.errors import ChangedMeanwhile, CommandError, Refused, UnexpectedAnswer
from experiments_cli.terminal import moment, plain

ROOT: Final = "/admin/v1"
AUDIT_PAGE: Final = 100
"""Entries of the audit trail that are asked for at once."""

SHOWN_CHARACTERS_MAX: Final = 80

T = TypeVar("T")


class _Problem(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    detail: str = ""
    title: str = ""
    field: str | None = None
    request_id: str | None = None
    current: Held | None = None


class AdminApi:
    """One gateway's admin port. actor, reason: of every write; with keys the gateway takes the key's name.

    Every call raises GatewayUnreachable, AnswerLost, UnexpectedAnswer and Refused.
    """

    def __init__(self, http: AdminHttp, *, actor: str, reason: str) -> None:
        self._http = http
        self._signed = {"x-sekisho-actor": actor.encode(), "x-sekisho-reason": reason.encode()}

    def experiments(self) -> dict[str, Held]:
        """Return every experiment, by name."""
        found = self._read("/experiments", dict[str, Held])
        return {name: held for name, held in sorted(found.items()) if held.document is not None}

    def experiment(self, name: str) -> Held:
        """Return one experiment."""
        try:
            held = self._read(_of(name), Held)
        except Refused as error:
            raise self._unknown(name, error) from error
        if held.document is None:
            raise UnexpectedAnswer(self._url(_of(name)), "without a document")
        return held

    def put(self, name: str, document: Mapping[str, Any], revision: int | None, *, dry_run: bool = False) -> Held:
        """Create an experiment (revision None), or replace the document of that revision.

        Raises ChangedMeanwhile as well.
        """
        body = json.dumps(document, ensure_ascii=False).encode()
        return self._write("PUT", name, revision, body, dry_run=dry_run)

    def delete(self, name: str, revision: int, *, dry_run: bool = False) -> Held:
        """Delete an experiment of that revision. Raises ChangedMeanwhile as well."""
        return self._write("DELETE", name, revision, None, dry_run=dry_run)

    def guardrails(self, name: str) -> Guardrails:
        """Return how an experiment's guardrails stand."""
        return self._read(f"{_of(name)}/guardrails", Guardrails)

    def publish_results(self, name: str, results: bytes) -> None:
        """Keep an experiment's results, as JSON, on the gateway."""
        self._ask("PUT", f"{_of(name)}/results", headers=self._signed, body=results)

    def explain(self, unit: str, *, model: str | None, attributes: Mapping[str, Any]) -> Explanation:
        """Return every experiment's decision for one unit."""
        query = {"unit": unit}
        if model is not None:
            query["model"] = model
        if attributes:
            query["attributes"] = json.dumps(attributes, ensure_ascii=False, separators=(",", ":"))
        return self._read("/explain", Explanation, query)

    def kill_switch(self) -> KillSwitch:
        """Return which models' experiments are switched off."""
        return self._read("/kill-switch", KillSwitch)

    def switch(self, model: str, *, on: bool, dry_run: bool = False) -> KillSwitch:
        """Switch a model's experiments off, or on again; `*`: every model's."""
        body = json.dumps({"model": model, "on": on}).encode()
        query = {"dry_run": "true"} if dry_run else {}
        return self._decoded(
            "/kill-switch", self._ask("PUT", "/kill-switch", query, headers=self._signed, body=body), KillSwitch
        )

    def audit(
        self, *, experiment: str | None = None, limit: int = AUDIT_PAGE, before: str | None = None
    ) -> tuple[tuple[AuditEntry, ...], str | None]:
        """Return a page of the audit trail, the newest first, and what to give as `before` for the next one."""
        query = {"limit": str(limit)}
        if experiment is not None:
            query["experiment"] = experiment
        if before is not None:
            query["before"] = before
        page = self._read("/audit", AuditPage, query)
        try:
            return page.read(), page.next
        except msgspec.ValidationError as error:
            raise self._other_shape("/audit", error) from error

    def status(self) -> list[ExperimentsStatus]:
        """Return the experiments' part of the status of each of the gateway's processes."""
        page = self._read("/status", Status)
        processes = [self._converted("/status", process, Status) for process in page.processes.values()]
        return [found.experiments for found in (page, *processes) if found.experiments is not None]

    def _write(self, method: str, name: str, revision: int | None, body: bytes | None, *, dry_run: bool) -> Held:
        match = {"if-none-match": b"*"} if revision is None else {"if-match": b'"%d"' % revision}
        query = {"dry_run": "true"} if dry_run else {}
        try:
            answer = self._ask(method, _of(name), query, headers={**self._signed, **match}, body=body)
        except _Stale as error:
            now = error.current.revision if error.current is not None else None
            raise ChangedMeanwhile(name, revision, now, self._who_changed(name)) from error
        return self._decoded(_of(name), answer, Held)

    def _who_changed(self, name: str) -> str | None:
        try:
            entries, _ = self.audit(experiment=name, limit=1)
        except CommandError:
            return None  # that somebody did is known all the same
        if not entries:
            return None
        last = entries[0]
        return plain(f", by {last.actor} at {moment(last.at)} ({last.action}: {last.reason})")

    def _unknown(self, name: str, error: Refused) -> Refused:
        if error.code != "unknown_experiment":
            return error
        try:
            known = ", ".join(self.experiments()) or "none"
        except CommandError:
            return error
        return Refused(error.status, error.code, f"no experiment {name!r}; there are: {known}")

    def _read(self, path: str, expected: type[T], query: Mapping[str, str] | None = None) -> T:
        return self._decoded(path, self._ask("GET", path, query), expected)

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, bytes] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        target = f"{ROOT}{path}" + (f"?{urlencode(query)}" if query else "")
        answer = self._http.ask(method, target, headers or {}, body)
        if not 200 <= answer.status < 300:
            raise self._refusal(path, answer)
        return answer

    def _refusal(self, path: str, answer: Answer) -> CommandError:
        try:
            problem = msgspec.json.decode(answer.body, type=_Problem)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return UnexpectedAnswer(self._url(path), f"{answer.status} with {_beginning(answer)}")
        if answer.status == 412:
            return _Stale(problem.current)
        more = [f"wait {answer.headers['retry-after']} s"] if answer.headers.get("retry-after", "").isdecimal() else []
        if problem.code in {"internal_error", "unknown_path"}:
            more.append(plain(f"{self._url(path)}, request {problem.request_id}"))
        return Refused(
            answer.status, problem.code, problem.detail or problem.title, field=problem.field, more=", ".join(more)
        )

    def _decoded(self, path: str, answer: Answer, expected: type[T]) -> T:
        try:
            return msgspec.json.decode(answer.body, type=expected)
        except msgspec.ValidationError as error:
            raise self._other_shape(path, error) from error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UnexpectedAnswer(self._url(path), f"with {_beginning(answer)}, not with JSON") from error

    def _converted(self, path: str, value: Any, expected: type[T]) -> T:
        try:
            return msgspec.convert(value, expected)
        except msgspec.ValidationError as error:
            raise self._other_shape(path, error) from error

    def _other_shape(self, path: str, error: msgspec.ValidationError) -> UnexpectedAnswer:
        return UnexpectedAnswer(self._url(path), f"with JSON of another shape ({plain(str(error))[:200]})")

    def _url(self, path: str) -> str:
        return f"{self._http.address}{ROOT}{path}"


class _Stale(CommandError):
    """A precondition failed; told as ChangedMeanwhile once it is known who made the change."""

    def __init__(self, current: Held | None) -> None:
        super().__init__("it was changed meanwhile")
        self.current = current


def _of(name: str) -> str:
    return f"/experiments/{quote(name, safe='')}"


def _beginning(answer: Answer) -> str:
    kind = plain(answer.headers.get("content-type", "no content-type"))[:SHOWN_CHARACTERS_MAX]
    text = answer.body[: 4 * SHOWN_CHARACTERS_MAX].decode("utf-8", "replace")
    return f"{kind}: {plain(' '.join(text.split()))[:SHOWN_CHARACTERS_MAX]!r}"
