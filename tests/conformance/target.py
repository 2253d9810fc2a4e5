"""The server that is checked, and the model by which it is driven."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from tests.conformance.tensors import DATATYPES, TensorSpec
from tests.conformance.wire import Address, Connection, NoAnswer, NotJson, Reply

INPUTS_MAX: Final = 64
DIMENSIONS_MAX: Final = 8


class Undrivable(Exception):
    """Nothing listens, or no valid inference can be made of what the server says; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server, and one model on it.

    version: the one to ask for, None for the server's choice. versions: those that its metadata lists. parameters:
    what each inference request must carry. identity: whether the outputs are known to equal the inputs, in order.
    """

    address: Address
    server: str
    extensions: frozenset[str]
    model: str
    version: str | None
    versions: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: Mapping[str, Any]
    identity: bool

    def path(self, action: str = "", *, version: str | None = None) -> str:
        """The model's path, of one version where one was asked for."""
        return model_path(self.model, version or self.version, action)


def model_path(model: str, version: str | None, action: str = "") -> str:
    """`/v2/models/{model}[/versions/{version}][/{action}]`."""
    path = f"/v2/models/{quote(model, safe='')}"
    if version is not None:
        path += f"/versions/{quote(version, safe='')}"
    return f"{path}/{action}" if action else path


def discover(
    address: Address,
    *,
    model: str | None,
    version: str | None,
    inputs: Sequence[TensorSpec],
    parameters: Mapping[str, Any],
    identity: bool,
) -> Target:
    """Ask the server for what was not given. Raises Undrivable."""
    server = _object_of(_ask(address, "GET", "/v2"))
    name = model or _only_model(address)
    path = model_path(name, version)
    reply = _ask(address, "GET", path)
    metadata = _object_of(reply)
    if not metadata and not inputs:
        raise Undrivable(
            f"{path} answers {reply.status} and no metadata: give --model (and --version), or each --input by hand"
        )
    found = tuple(inputs) or _specs(metadata.get("inputs"), path)
    if not found:
        raise Undrivable(f"{path} lists no inputs: give each one with --input NAME:DATATYPE:SHAPE")
    extensions = server.get("extensions")
    versions = metadata.get("versions")
    return Target(
        address=address,
        server=" ".join(str(server.get(key, "")) for key in ("name", "version")).strip(),
        extensions=frozenset(e for e in extensions if isinstance(e, str))
        if isinstance(extensions, list)
        else frozenset(),
        model=name,
        version=version,
        versions=tuple(v for v in versions if isinstance(v, str)) if isinstance(versions, list) else (),
        inputs=found,
        outputs=_specs(metadata.get("outputs"), path),
        parameters=parameters,
        identity=identity,
    )


def _only_model(address: Address) -> str:
    # The protocol itself lists no models; the repository extension does.
    reply = _ask(address, "POST", "/v2/repository/index", b"{}")
    try:
        listed = reply.json
    except NotJson:
        listed = None
    names = {entry.get("name") for entry in listed if isinstance(entry, dict)} if isinstance(listed, list) else set()
    if len(names) != 1:
        known = f"it serves {', '.join(sorted(map(str, names)))}" if names else "it does not list its models here"
        raise Undrivable(f"which model? {known}: name one with --model")
    return str(names.pop())


def _specs(listed: Any, path: str) -> tuple[TensorSpec, ...]:
    if not isinstance(listed, list):
        return ()
    if len(listed) > INPUTS_MAX:
        raise Undrivable(f"{path} lists {len(listed)} tensors; at most {INPUTS_MAX} are driven")
    return tuple(_spec(entry, path) for entry in listed)


def _spec(entry: Any, path: str) -> TensorSpec:
    try:
        spec = TensorSpec(str(entry["name"]), str(entry["datatype"]), tuple(int(size) for size in entry["shape"]))
    except (TypeError, KeyError, ValueError) as error:
        raise Undrivable(f"{path} describes a tensor without name, datatype or shape: give --input") from error
    if spec.datatype not in DATATYPES or len(spec.shape) > DIMENSIONS_MAX:
        raise Undrivable(f"{path}: no values can be made for {spec.name!r} of {spec.datatype} {list(spec.shape)}")
    return spec


def _object_of(reply: Reply) -> dict[str, Any]:
    try:
        document = reply.json
    except NotJson:
        return {}
    return document if reply.status == 200 and isinstance(document, dict) else {}


def _ask(address: Address, method: str, path: str, body: bytes | None = None) -> Reply:
    try:
        with Connection(address) as connection:
            return connection.ask(method, path, body, {})
    except NoAnswer as error:
        if not error.connected:
            raise Undrivable(f"nothing listens on {address.host}:{address.port} ({error})") from error
        raise Undrivable(f"{method} {path} got no answer: {error}") from error
