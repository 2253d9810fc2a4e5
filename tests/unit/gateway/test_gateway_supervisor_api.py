import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import pytest

from gateway.edge.supervisor_api import supervisor_api
from gateway.merged_metrics import MergedMetrics
from http_server.asgi import answer_of
from tests.unit.gateway.gateway_fakes import in_loop

PATH = "/admin/v1/models/churn/versions/2"
WHO = [(b"x-sekisho-actor", b"ana"), (b"x-sekisho-reason", b"release"), (b"authorization", b"Bearer sk_secret")]
IN_USE = (409, {"code": "version_in_use"})


def state(ready: bool = True) -> tuple[int, Any]:
    return 200, {"model": "churn", "version": "2", "ready": ready, "problem": None}


class Process:
    """One gateway process on its Unix socket, which answers as the test says and keeps what it was asked."""

    def __init__(self, path: Path, answer: Callable[[str], tuple[int, Any]]) -> None:
        self.path, self._answer = path, answer
        self.asked: list[bytes] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    @property
    def changed(self) -> bool:
        """Whether it was asked for more than a dry run."""
        return any(b"dry_run=true" not in request.partition(b"\r\n")[0] for request in self.asked)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        self.asked.append(head + await reader.readexactly(length))
        status, content = self._answer(head.split(b" ")[1].decode())
        writer.write(b"HTTP/1.1 %d X\r\n\r\n" % status + json.dumps(content).encode())
        writer.close()


class Request:
    """A request as a bridge to an application sees it."""

    def __init__(self, method: str, target: str, body: bytes = b"") -> None:
        self.method, self.target, self.body, self.headers = method, target.encode(), body, WHO
        self.path, _, query = target.partition("?")
        self.query = query.encode()


async def asked(processes: dict[str, Path], request: Request) -> tuple[int, Any]:
    exchange: Any = request
    status, _, body = await answer_of(supervisor_api(processes, MergedMetrics()), exchange)
    return status, json.loads(body)


def scenario(*answers: Callable[[str], tuple[int, Any]] | tuple[int, Any]):
    """Run a test in a loop with as many processes as there are answers."""

    def decorate(test):
        def run(tmp_path):
            async def inner() -> None:
                async with AsyncExitStack() as stack:
                    processes = [
                        await stack.enter_async_context(
                            Process(tmp_path / f"{i}.sock", answer if callable(answer) else lambda _, a=answer: a)
                        )
                        for i, answer in enumerate(answers)
                    ]
                    await test(processes, {str(i): p.path for i, p in enumerate(processes)})

            in_loop(inner)()

        run.__name__ = test.__name__
        return run

    return decorate


@scenario(state(), state())
async def test_a_change_is_tried_in_every_process_and_then_made_in_every_one(processes, sockets):
    status, answer = await asked(sockets, Request("PUT", PATH, b'{"workers": []}'))
    assert (status, answer["ready"]) == (200, True)
    for process in processes:
        targets = [request.split(b" ")[1].decode() for request in process.asked]
        assert targets == [f"{PATH}?dry_run=true", PATH]
        assert all(request.endswith(b'\r\n\r\n{"workers": []}') for request in process.asked)


@scenario(state(), IN_USE)
async def test_where_one_process_refuses_its_refusal_is_the_answer_and_none_has_changed(processes, sockets):
    assert await asked(sockets, Request("DELETE", PATH)) == (409, {"code": "version_in_use"})
    assert not any(process.changed for process in processes)


@scenario(state(), state(ready=False))
async def test_a_change_is_ready_when_it_is_in_every_process(processes, sockets):
    assert (await asked(sockets, Request("PUT", PATH)))[1]["ready"] is False


@pytest.mark.parametrize("query", ["?dry_run=true", "?dry_run=1"])
def test_a_dry_run_stays_one(tmp_path, query):
    @scenario(state(), state())
    async def run(processes, sockets):
        assert (await asked(sockets, Request("PUT", PATH + query)))[0] == 200
        assert not any(process.changed for process in processes)

    run(tmp_path)


@scenario(state())
async def test_a_process_that_is_only_just_starting_holds_up_no_change(processes, sockets):
    sockets["9"] = processes[0].path.with_name("not-there.sock")
    assert (await asked(sockets, Request("PUT", PATH)))[0] == 200
    assert processes[0].changed


@scenario()
async def test_without_any_process_a_change_is_refused(processes, sockets):
    assert (await asked(sockets, Request("PUT", PATH)))[0] == 503


@scenario(state())
async def test_who_changes_it_and_why_is_passed_on_and_no_credential_is(processes, sockets):
    await asked(sockets, Request("PUT", PATH))
    assert all(b"x-sekisho-actor: ana\r\nx-sekisho-reason: release\r\n" in request for request in processes[0].asked)
    assert all(b"sk_secret" not in request for request in processes[0].asked)


@scenario((404, {"code": "unknown_path"}))
async def test_a_path_is_passed_on_as_it_came_so_that_it_can_bring_no_line_of_its_own(processes, sockets):
    request = Request("GET", "/admin/v1/x%20HTTP/1.0%0dy:z")
    request.path = "/admin/v1/x HTTP/1.0\ry:z"
    assert (await asked(sockets, request))[0] == 404
    assert processes[0].asked[0].startswith(b"GET /admin/v1/x%20HTTP/1.0%0dy:z HTTP/1.0\r\nhost: gateway\r\n")
