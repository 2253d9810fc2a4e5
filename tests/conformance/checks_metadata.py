"""Health, server metadata and model metadata."""

from typing import Any, Final

from tests.conformance.check import Check, Level
from tests.conformance.expectations import NotOffered, expect, expect_object, expect_refusal, expect_status
from tests.conformance.probe import Probe
from tests.conformance.sources import OPENAPI, REST
from tests.conformance.target import model_path
from tests.conformance.tensors import DATATYPES
from tests.conformance.wire import NotJson

NO_MODEL: Final = "no-such-model"
NO_VERSION: Final = "987654321"


def _live(probe: Probe) -> None:
    expect_status(probe.get("/v2/health/live"), 200)


def _live_body(probe: Probe) -> None:
    document = expect_object(probe.get("/v2/health/live"))
    expect(document.get("live") is True, "`live` true", f"`live` {document.get('live')!r}")


def _ready(probe: Probe) -> None:
    expect_status(probe.get("/v2/health/ready"), 200)


def _ready_body(probe: Probe) -> None:
    document = expect_object(probe.get("/v2/health/ready"))
    told = document.get("ready", document.get("live"))
    expect(told is True, "`ready` (or `live`, as the page prints it) true", "neither")


def _ready_word(probe: Probe) -> str:
    reply = probe.get("/v2/health/ready")
    try:
        document = reply.json
    except NotJson:
        document = None
    return " and ".join(f"`{key}`" for key in document) if isinstance(document, dict) else "no body"


def _server_metadata(probe: Probe) -> None:
    document = expect_object(probe.get("/v2"))
    for key in ("name", "version"):
        _expect_text(document, key)
    extensions = document.get("extensions")
    texts = isinstance(extensions, list) and all(isinstance(extension, str) for extension in extensions)
    expect(texts, "`extensions`, a list of strings", f"`extensions` {extensions!r}")


def _server_metadata_slash(probe: Probe) -> str:
    return f"status {probe.get('/v2/').status}"


def _model_ready(probe: Probe) -> None:
    expect_status(probe.get(probe.target.path("ready")), 200)


def _model_ready_body(probe: Probe) -> None:
    document = expect_object(probe.get(probe.target.path("ready")))
    expect(document.get("name") == probe.target.model, "`name`, the model's", f"`name` {document.get('name')!r}")
    expect(document.get("ready") is True, "`ready` true", f"`ready` {document.get('ready')!r}")


def _model_ready_version(probe: Probe) -> None:
    for version in _versions(probe):
        expect_status(probe.get(probe.target.path("ready", version=version)), 200)


def _model_ready_unknown(probe: Probe) -> None:
    expect_refusal(probe.get(model_path(NO_MODEL, None, "ready")))


def _model_ready_unknown_version(probe: Probe) -> None:
    _versions(probe)
    expect_refusal(probe.get(model_path(probe.target.model, NO_VERSION, "ready")))


def _platform(probe: Probe) -> str:
    platform = expect_object(probe.get(probe.target.path())).get("platform")
    return f"`{platform}`" if platform else "empty"


def _model_metadata(probe: Probe) -> None:
    document = expect_object(probe.get(probe.target.path()))
    expect(document.get("name") == probe.target.model, "`name`, the model's", f"`name` {document.get('name')!r}")
    _expect_text(document, "platform")


def _model_tensors(probe: Probe) -> None:
    document = expect_object(probe.get(probe.target.path()))
    for key in ("inputs", "outputs"):
        listed = document.get(key)
        expect(isinstance(listed, list) and bool(listed), f"`{key}`, a list of tensors", f"`{key}` {listed!r}")
        for entry in listed or ():
            _expect_tensor(key, entry)


def _model_versions(probe: Probe) -> None:
    for version in _versions(probe):
        document = expect_object(probe.get(probe.target.path(version=version)))
        expect(document.get("name") == probe.target.model, "`name`, the model's", f"`name` {document.get('name')!r}")


def _model_metadata_unknown(probe: Probe) -> None:
    expect_refusal(probe.get(model_path(NO_MODEL, None)))


def _model_metadata_unknown_version(probe: Probe) -> None:
    _versions(probe)
    expect_refusal(probe.get(model_path(probe.target.model, NO_VERSION)))


def _versions(probe: Probe) -> tuple[str, ...]:
    if not probe.target.versions:
        raise NotOffered("the model's metadata lists no versions")
    return probe.target.versions


def _expect_text(document: dict[str, Any], key: str) -> None:
    value = document.get(key)
    expect(isinstance(value, str), f"`{key}`, a string", f"`{key}` {value!r}" if key in document else f"no `{key}`")


def _expect_tensor(key: str, entry: Any) -> None:
    expect(isinstance(entry, dict), f"objects in `{key}`", type(entry).__name__)
    _expect_text(entry, "name")
    expect(entry.get("datatype") in DATATYPES, f"a datatype of the protocol in `{key}`", repr(entry.get("datatype")))
    shape = entry.get("shape")
    whole = isinstance(shape, list) and all(isinstance(d, int) and not isinstance(d, bool) and d >= -1 for d in shape)
    expect(whole, f"a shape of whole numbers or -1 in `{key}`", repr(shape))


CHECKS: Final = (
    Check("server.live", Level.REQUIRED, f"{REST}, Server Live", "`/v2/health/live` answers 200", _live),
    Check(
        "server.live.body",
        Level.REQUIRED,
        f"{REST}, Server Live Response",
        "… with an object whose `live` is true",
        _live_body,
    ),
    Check("server.ready", Level.REQUIRED, f"{REST}, Server Ready", "`/v2/health/ready` answers 200", _ready),
    Check(
        "server.ready.body",
        Level.REQUIRED,
        f"{REST}, Server Ready Response",
        "… with an object that says so",
        _ready_body,
    ),
    Check(
        "server.ready.word",
        Level.OBSERVED,
        f"{REST}, Server Ready Response",
        "the word by which it says so: the page prints `live`, KServe's client reads `ready`",
        _ready_word,
    ),
    Check(
        "server.metadata",
        Level.REQUIRED,
        f"{REST}, Server Metadata",
        "`/v2` answers with name, version and extensions",
        _server_metadata,
    ),
    Check(
        "server.metadata.slash",
        Level.OBSERVED,
        f"{OPENAPI}, paths",
        "what `/v2/` answers, as the OpenAPI document spells it",
        _server_metadata_slash,
    ),
    Check("model.ready", Level.REQUIRED, f"{REST}, Model Ready", "a model's `/ready` answers 200", _model_ready),
    Check(
        "model.ready.body",
        Level.REQUIRED,
        f"{REST}, Model Ready Response",
        "… with its name and `ready`",
        _model_ready_body,
    ),
    Check(
        "model.ready.version",
        Level.REQUIRED,
        f"{REST}, HTTP/REST",
        "each listed version has a `/ready` of its own",
        _model_ready_version,
    ),
    Check(
        "model.ready.unknown",
        Level.REQUIRED,
        f"{REST}, Model Ready",
        "an unknown model is not ready: 4xx and an error text",
        _model_ready_unknown,
    ),
    Check(
        "model.ready.unknown-version",
        Level.REQUIRED,
        f"{REST}, Model Ready",
        "so is an unknown version of a known model",
        _model_ready_unknown_version,
    ),
    Check(
        "model.metadata",
        Level.REQUIRED,
        f"{REST}, Model Metadata",
        "a model's metadata has its name and its platform",
        _model_metadata,
    ),
    Check(
        "model.metadata.tensors",
        Level.REQUIRED,
        f"{REST}, Model Metadata Response",
        "… and name, datatype and shape of each input and output",
        _model_tensors,
    ),
    Check(
        "model.metadata.version",
        Level.REQUIRED,
        f"{REST}, Model Metadata Response",
        "each listed version answers under its own URL",
        _model_versions,
    ),
    Check(
        "model.metadata.unknown",
        Level.REQUIRED,
        f"{REST}, Model Metadata Error",
        "metadata of an unknown model: 4xx and an error text",
        _model_metadata_unknown,
    ),
    Check(
        "model.metadata.unknown-version",
        Level.REQUIRED,
        f"{REST}, Model Metadata Error",
        "metadata of an unknown version: 4xx and an error text",
        _model_metadata_unknown_version,
    ),
    Check(
        "model.platform",
        Level.OBSERVED,
        f"{REST}, Platforms",
        "the platform, of which the page allows seven names",
        _platform,
    ),
)
