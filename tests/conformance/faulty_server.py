"""A server that is right but for one planted fault: it passes requests on to a real one and spoils the answers."""

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from tests.conformance.wire import Reply

BODY_BYTES_MAX: Final = 1_000_000

Spoil = Callable[[str, Reply], Reply | None]
"""Takes path and answer, gives the answer to send; None: the connection is closed without one."""


@contextmanager
def faulty_server(port: int, spoil: Spoil) -> Iterator[str]:
    """Serve on loopback, before the server on `port`. Yields the base URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._pass_on()

        def do_POST(self) -> None:
            self._pass_on()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def _pass_on(self) -> None:
            length = int(self.headers.get("content-length", 0))
            if length > BODY_BYTES_MAX or "transfer-encoding" in self.headers:
                self.close_connection = True
                self.send_error(413)
                return
            body = self.rfile.read(length)
            answer = spoil(self.path, _ask(port, self.command, self.path, body, dict(self.headers)))
            if answer is None:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name != "content-length":
                    self.send_header(name, value)
            self.send_header("content-length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        serving.join()


def edited(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Change the document of each inference answer in JSON."""

    def spoil(path: str, reply: Reply) -> Reply:
        if not path.endswith("/infer") or reply.status != 200 or reply.media_type != "application/json":
            return reply
        document = reply.json
        change(document)
        return Reply(reply.status, reply.headers, json.dumps(document).encode())

    return spoil


def _ask(port: int, method: str, path: str, body: bytes, headers: dict[str, str]) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        content = response.read()
        return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, content)
    finally:
        connection.close()
