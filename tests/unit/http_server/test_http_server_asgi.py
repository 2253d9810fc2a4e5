import asyncio
import logging

from http_server.asgi import IN_FLIGHT_MAX, AsgiBridge
from tests.unit.http_server.exchanges import Answer, ask


async def parts(scope, receive, send):
    """Answer in three parts with what it was asked."""
    request = await receive()
    assert not request["more_body"]
    said = f"{scope['method']} {scope['path']} {scope['query_string'].decode()} ".encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"999"), *scope["headers"]]
    await send({"type": "http.response.start", "status": 201, "headers": headers})
    await send({"type": "http.response.body", "body": said, "more_body": True})
    await send({"type": "http.response.body", "body": request["body"], "more_body": True})
    await send({"type": "http.response.body"})
    assert (await receive())["type"] == "http.disconnect"


async def broken(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise RuntimeError("no answer")


def refusal(status, detail, target, headers):
    return b"retry-after: 1\r\n", b"%d %b" % (status, detail.encode())


def answer_by(application, *asked) -> Answer:
    async def scenario() -> Answer:
        bridge = AsgiBridge(application, refusal, lambda: (b"x-fault: yes\r\n", b"sorry"))
        return await ask(bridge, *asked)

    return asyncio.run(scenario())


def test_the_parts_of_an_answer_are_gathered_into_one():
    answer = answer_by(parts, "PUT", "/a%20b?c=d", b"body", [(b"x-one", b"1")])
    assert (answer.status, answer.body) == (201, b"PUT /a b c=d body")
    assert answer.headers == {b"content-type": b"text/plain", b"x-one": b"1"}  # the server counts the length itself


def test_an_application_that_fails_is_logged_and_answered_for(caplog):
    with caplog.at_level(logging.ERROR):
        answer = answer_by(broken, "GET", "/x")
    assert (answer.status, answer.body, answer.headers) == (500, b"sorry", {b"x-fault": b"yes"})
    assert "a request failed" in caplog.text


def test_more_requests_at_once_than_are_borne_are_told_to_come_again_and_probes_are_answered():
    async def scenario() -> tuple[list[Answer], Answer, Answer, Answer]:
        go_on = asyncio.Event()

        async def slow(scope, receive, send):
            if scope["path"] != "/alive":
                await go_on.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})

        bridge = AsgiBridge(slow, refusal, lambda: (b"", b""), frozenset({"/alive"}))
        first = [asyncio.create_task(ask(bridge, "GET", "/x")) for _ in range(IN_FLIGHT_MAX)]
        await asyncio.sleep(0)
        refused, alive = await ask(bridge, "GET", "/x"), await ask(bridge, "GET", "/alive")
        go_on.set()
        answers = await asyncio.gather(*first)
        return answers, refused, alive, await ask(bridge, "GET", "/x")

    answers, refused, alive, after = asyncio.run(scenario())
    assert (refused.status, refused.headers) == (503, {b"retry-after": b"1"})
    assert refused.body == b"503 too many requests of this kind at once"
    assert {answer.status for answer in (*answers, alive, after)} == {200}
