"""A server of the protocol as others write them: JSON only, no manifest, names of its own, whole matrices."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

METADATA = {
    "name": "their-sum",
    "versions": [],
    "platform": "other",
    "inputs": [{"name": "rows", "datatype": "FP64", "shape": [-1, 2]}],
    "outputs": [{"name": "sums", "datatype": "FP64", "shape": [-1, 2]}],
}


class ForeignServer:
    """Serves `their-sum`: for each row zero and its sum.

    `asked` are the requests that it got, `metadata` is what it tells of the model.
    """

    def __init__(self, metadata: dict[str, Any] | None = None) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.metadata = METADATA if metadata is None else metadata
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                pages = {"/v2": {"name": "foreign", "version": "1", "extensions": []}}
                pages["/v2/models/their-sum"] = outer.metadata
                if self.path in pages:
                    self._answer(200, pages[self.path])
                else:
                    self._answer(404, {"error": "no such page"})

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.asked.append((self.path, request))
                if self.path != "/v2/models/their-sum/infer":
                    self._answer(404, {"error": "no such model"})
                    return
                (given,) = request["inputs"]
                rows, columns = given["shape"]
                values = given["data"]
                sums = [sum(v or 0 for v in values[i * columns : (i + 1) * columns]) for i in range(rows)]
                matrix = [v for s in sums for v in (0.0, s)]
                output = {"name": "sums", "datatype": "FP64", "shape": [rows, 2], "data": matrix}
                self._answer(200, {"model_name": "their-sum", "outputs": [output]})

            def _answer(self, status: int, content: dict[str, Any]) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
