"""A worker on loopback that says what it serves and scores nothing; and routes to it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Self

import msgspec

from contracts.manifest import Artifact, Input, Manifest, Output, encode_manifest
from feature_store import RegisteredView
from gateway.configuration.configuration import Configuration
from gateway.configuration.last_good import StateDirectory
from gateway.configuration.registered_views import RegisteredViews
from gateway.configuration.version_keeper import VersionSurroundings
from gateway.routes_file import ModelRoute

DEADLINE_S = 5.0


class DescribingWorker:
    """Answers for `model@version` what a worker of ours would. `silent`: takes requests and answers none."""

    def __init__(self, model: str, version: str, *, features: tuple[str, ...] = (), silent: bool = False) -> None:
        self.manifest = Manifest(
            model=model,
            version=version,
            runtime="onnxruntime",
            artifact=Artifact("model.onnx", "0" * 64),
            inputs=(Input("X", "FP32", (-1, len(features) or 2), features),),
            outputs=(Output("score", "FP32"),),
            created_at="",
        )
        self.silent = silent
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def serves_otherwise(self, **changes: Any) -> None:
        """Give another manifest from now on."""
        self.manifest = msgspec.structs.replace(self.manifest, **changes)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if self.silent:
                    continue
                body = encode_manifest(self.manifest) if head.split(b" ")[1].endswith(b"/manifest") else b"{}"
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.connections -= 1
            writer.close()


def around(
    directory: Path, clock: Callable[[], float], views: dict[str, RegisteredView] | None = None
) -> VersionSurroundings:
    """What versions need, with a registry of given views."""

    async def read() -> dict[str, RegisteredView]:
        return dict(views or {})

    async def resolve(host: str, port: int) -> list[str]:
        raise OSError(f"{host} is not known here")

    state = StateDirectory(directory, lambda: 0)
    return VersionSurroundings(
        views=RegisteredViews(read, state, clock),
        state=state,
        resolve=resolve,
        random=Random(1),
        clock=clock,
        describing=asyncio.Semaphore(64),
    )


def route(versions: dict[str, str], default: str = "1", **more: Any) -> ModelRoute:
    """Make a model's route. versions: worker URL by version."""
    fields = {v: {"workers": [url]} for v, url in versions.items()}
    return msgspec.convert({"versions": fields, "default_version": default, "deadline_ms": 1, **more}, ModelRoute)


def configuration(**models: ModelRoute) -> Configuration:
    """Make a configuration without experiments or run-time changes."""
    return Configuration(file_routes=models, overlays={}, routes=models, experiments={})


async def eventually(what: str, holds: Callable[[], Any]) -> None:
    """Let time pass until it holds."""
    give_up = asyncio.get_running_loop().time() + DEADLINE_S
    while not holds():
        assert asyncio.get_running_loop().time() < give_up, f"not within {DEADLINE_S:g} s: {what}"
        await asyncio.sleep(0.005)
