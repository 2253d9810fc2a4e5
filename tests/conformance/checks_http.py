"""What HTTP itself asks of a server, and what it leaves open."""

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Final

from tests.conformance.check import Check, Level
from tests.conformance.expectations import expect, expect_answer, expect_object, expect_status
from tests.conformance.probe import Probe
from tests.conformance.sources import FRAMING, HTTP, URI
from tests.conformance.wire import Connection, chunked

CHUNK_BYTES: Final = 64
_JSON: Final = {"content-type": "application/json"}


def _chunked(probe: Probe) -> None:
    parts = chunked(_body(probe), CHUNK_BYTES)
    reply = probe.ask_in_parts("POST", probe.target.path("infer"), parts, _JSON | {"transfer-encoding": "chunked"})
    expect_answer(reply, probe.target.model)


def _kept(probe: Probe) -> None:
    with Connection(probe.target.address) as connection:
        for _ in range(3):
            reply = probe.ask("POST", probe.target.path("infer"), _body(probe), _JSON, connection=connection)
            expect_answer(reply, probe.target.model)
            expect(connection.is_open, "a connection that stays open", "one that is closed after an answer")


def _kept_after_refusal(probe: Probe) -> None:
    with Connection(probe.target.address) as connection:
        refused = probe.ask("POST", probe.target.path("infer"), b'{"inputs": ', _JSON, connection=connection)
        expect(400 <= refused.status < 500, "a 4xx status", f"status {refused.status}")
        reply = probe.ask("POST", probe.target.path("infer"), _body(probe), _JSON, connection=connection)
        expect_answer(reply, probe.target.model)


def _charset(probe: Probe) -> None:
    headers = {"content-type": "application/json; charset=utf-8"}
    expect_answer(probe.ask("POST", probe.target.path("infer"), _body(probe), headers), probe.target.model)


def _header_case(probe: Probe) -> None:
    headers = {"CONTENT-TYPE": "application/json", "X-Unknown": "1"}
    expect_answer(probe.ask("POST", probe.target.path("infer"), _body(probe), headers), probe.target.model)


def _query(probe: Probe) -> None:
    path = probe.target.path("infer") + "?debug=1"
    expect_answer(probe.ask("POST", path, _body(probe), _JSON), probe.target.model)


def _head(probe: Probe) -> None:
    for path in ("/v2/health/live", "/v2", probe.target.path()):
        reply = probe.ask("HEAD", path)
        expect_status(reply, 200)
        expect(not reply.body, "no body", f"{len(reply.body)} bytes")


def _expect(probe: Probe) -> None:
    headers = _JSON | {"expect": "100-continue"}
    expect_answer(probe.ask("POST", probe.target.path("infer"), _body(probe), headers), probe.target.model)


def _percent(probe: Probe) -> None:
    # Any character of a name may come as its code: `m` as `%6D`.
    spelled = "".join(f"%{byte:02X}" for byte in probe.target.model.encode())
    reply = probe.get(f"/v2/models/{spelled}")
    document = expect_object(reply)
    expect(document.get("name") == probe.target.model, "the same model", repr(document.get("name")))


def _two_framings(probe: Probe) -> None:
    body = _body(probe)
    headers = _JSON | {"content-length": str(len(body)), "transfer-encoding": "chunked"}
    reply = probe.ask_in_parts("POST", probe.target.path("infer"), chunked(body, len(body)), headers)
    expect(400 <= reply.status < 500, "a 4xx status", f"status {reply.status}")
    probe.serves_on()


def _slash(probe: Probe) -> str:
    return f"status {probe.get(probe.target.path() + '/').status}"


def _encoded(encoding: str, compress: Callable[[bytes], bytes]) -> Callable[[Probe], str]:
    def run(probe: Probe) -> str:
        headers = _JSON | {"content-encoding": encoding}
        reply = probe.ask("POST", probe.target.path("infer"), compress(_body(probe)), headers)
        return "taken" if reply.status == 200 else f"refused with {reply.status}"

    return run


def _encoded_answer(probe: Probe) -> str:
    headers = _JSON | {"accept-encoding": "gzip"}
    reply = probe.ask("POST", probe.target.path("infer"), _body(probe), headers)
    return reply.headers.get("content-encoding", "answered as it is")


def _body(probe: Probe) -> bytes:
    return json.dumps(probe.request()).encode()


CHECKS: Final = (
    Check("http.chunked", Level.REQUIRED, f"{FRAMING}, 7.1", "a chunked body is read", _chunked),
    Check("http.keep-alive", Level.REQUIRED, f"{FRAMING}, 9.3", "a connection serves one request after another", _kept),
    Check(
        "http.keep-alive.refusal", Level.HARDENING, f"{FRAMING}, 9.3", "… also after a refused one", _kept_after_refusal
    ),
    Check("http.charset", Level.REQUIRED, f"{HTTP}, 8.3.1", "a content type may carry a charset", _charset),
    Check(
        "http.header.case",
        Level.REQUIRED,
        f"{HTTP}, 5.1",
        "header names are read in any case, unknown ones are passed over",
        _header_case,
    ),
    Check(
        "http.query", Level.REQUIRED, f"{HTTP}, 4.2.2", "a query string, as clients may add one, does no harm", _query
    ),
    Check("http.head", Level.REQUIRED, f"{HTTP}, 9.1", "HEAD is answered as GET is, without the body", _head),
    Check(
        "http.expect",
        Level.REQUIRED,
        f"{HTTP}, 10.1.1",
        "`expect: 100-continue`, which curl sends with large bodies, does no harm",
        _expect,
    ),
    Check("http.percent", Level.REQUIRED, f"{URI}, 2.3", "a model's name may come percent-encoded", _percent),
    Check(
        "http.two-framings",
        Level.HARDENING,
        f"{FRAMING}, 6.3",
        "a length and chunks at once, as request smugglers send, are refused",
        _two_framings,
    ),
    Check("http.slash", Level.OBSERVED, f"{HTTP}, 4.2", "what a slash after the model's name gets", _slash),
    Check(
        "http.gzip", Level.OBSERVED, f"{HTTP}, 8.4", "whether a body in gzip is taken", _encoded("gzip", gzip.compress)
    ),
    Check(
        "http.deflate",
        Level.OBSERVED,
        f"{HTTP}, 8.4",
        "whether a body in deflate is taken",
        _encoded("deflate", zlib.compress),
    ),
    Check(
        "http.accept-encoding",
        Level.OBSERVED,
        f"{HTTP}, 12.5.3",
        "the encoding of an answer to a caller who takes gzip",
        _encoded_answer,
    ),
)
