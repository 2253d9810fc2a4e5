"""Asks a running process everything that its OpenAPI document allows, and much that it does not."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.integration.gateway_client import Client

SEED = 20_260_101
EXAMPLES = 6
"""Generated for each operation, beside the boundary values of every parameter and field."""

REQUEST_TIMEOUT_S = 10
RUN_TIMEOUT_S = 90
OUTPUT_CHARACTERS_MAX = 8_000

ALIVE = ("not_a_server_error", "unsupported_method", "allow_header_conformance")
TRUE_TO_ITS_DOCUMENT = (
    *ALIVE,
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
UNAVAILABLE_IS_NO_ERROR = '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "3xx", "4xx", "503", "504"]\n'


def document_of(port: int) -> dict[str, Any]:
    """Ask a port for its OpenAPI document, which itself is left out of it."""
    with Client(port) as client:
        document: dict[str, Any] = client.ask("GET", "/openapi.json").json
    document["paths"].pop("/openapi.json", None)
    return document


def fuzz(
    port: int,
    document: dict[str, Any],
    directory: Path,
    known: dict[str, list[str]],
    inference: dict[str, Any] | None = None,
    checks: tuple[str, ...] = TRUE_TO_ITS_DOCUMENT,
) -> None:
    """Fuzz what listens on a port; fail the test, with a command that repeats the run, where an answer is wrong.

    A request without an answer counts as wrong. known: what a path's parameter may be to lead somewhere, by its name;
    the document alone says only that it is a string. inference: a request that the first of them takes, likewise.
    """
    for path, item in document["paths"].items():
        _suggest(item, known)
        if inference is not None and path.endswith("/infer"):
            item["post"]["requestBody"]["content"]["application/json"]["example"] = inference
    schema, settings = directory / "openapi.json", directory / "schemathesis.toml"
    schema.write_text(json.dumps(document), encoding="utf-8")
    settings.write_text(UNAVAILABLE_IS_NO_ERROR, encoding="utf-8")
    command = [str(Path(sys.executable).with_name("schemathesis")), "--no-color", "--config-file", str(settings)]
    command += ["run", str(schema), "--url", f"http://127.0.0.1:{port}", "--checks", ",".join(checks)]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES), "--seed", str(SEED)]
    command += ["--no-shrink", "--generation-database", "none", "--request-timeout", str(REQUEST_TIMEOUT_S)]
    command += ["--suppress-health-check", "all", "--warnings", "off", "--continue-on-failure"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False, cwd=directory)
    told = f"{ran.stdout[-OUTPUT_CHARACTERS_MAX:]}{ran.stderr[-OUTPUT_CHARACTERS_MAX:]}"
    assert ran.returncode == 0, f"{told}\nTo repeat, with --url of a running process:\n{shlex.join(command)}"


def _suggest(item: dict[str, Any], known: dict[str, list[str]]) -> None:
    operations = [each for name, each in item.items() if name != "parameters"]
    for holder in (item, *operations):
        for parameter in holder.get("parameters", ()):
            if parameter.get("in") == "path" and parameter.get("name") in known:
                values = known[parameter["name"]]
                parameter["schema"] = {"anyOf": [{"enum": values}, parameter["schema"]]}
                parameter["example"] = values[0]
