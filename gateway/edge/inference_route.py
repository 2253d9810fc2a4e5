"""`/v2`: the Open Inference Protocol on the gateway. Tensors in, tensors out, through the same split, limits and log.

Any client of the protocol can so be moved from one worker to the gateway. Errors are the protocol's `{"error": …}`.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from contracts.datatypes import BYTES, DTYPE_BY_DATATYPE
from contracts.headers import INFERENCE_HEADER_CONTENT_LENGTH, SERVER_TIMING
from contracts.inference import (
    InferenceFormatError,
    InferenceRequest,
    InferenceResponse,
    Parameter,
    Tensor,
    decode_request,
    encode_response,
    json_length,
    tensor_of,
)
from gateway.access.gate import AccessGate
from gateway.access.key_ring import Key
from gateway.access.keys_file import Scope
from gateway.admission import Priority
from gateway.edge import problem
from gateway.edge.call_headers import budget_ms, forced_variant, priority_of, timing
from gateway.edge.http_exchange import request_id_of
from gateway.errors import (
    BodyTooLarge,
    GatewayError,
    InvalidRequest,
    MalformedRequest,
    MethodNotAllowed,
    ModelNotReady,
    TooManyInstances,
    UnknownModel,
    UnknownPath,
    UnsupportedMediaType,
)
from gateway.metrics import GatewayMetrics
from gateway.predict import Prediction, Predictor
from gateway.predict_request import PredictRequest
from gateway.row_sources import SentRows
from gateway.served_models import STATIC_DATATYPE, ServedModel, ServedVersion
from gateway.variant_draw import Call, is_split
from http_server.content_encoding import EncodingCorrupt, EncodingUnknown, InflatedTooLarge, encoding_of, inflated
from http_server.exchange import Exchange

PREFIX: Final = "/v2"
ROUTE: Final = "/v2/models/{model}/infer"
VERSION_ROUTE: Final = "/v2/models/{model}/versions/{version}/infer"
SERVER_NAME: Final = "sekisho-gateway"
SCOPES: Final = (Scope.PREDICT,)
"""Of which a caller's key must have one to infer. Descriptions and health are open."""

EXTENSIONS: Final = ("binary_tensor_data",)

_PRIORITY_BY_NUMBER: Final = {1: Priority.CRITICAL, 2: Priority.DEFAULT, 3: Priority.SHEDDABLE}
_MODEL_PATH: Final = re.compile(
    r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/(?P<action>infer|ready))?"
)
_SERVER_PATHS: Final = frozenset({"/v2", "/v2/", "/v2/health/live", "/v2/health/ready"})
_JSON: Final = b"application/json"
_BINARY: Final = b"application/octet-stream"

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Request:
    """One request on its way through the route."""

    exchange: Exchange
    path: str
    headers: dict[bytes, bytes]
    request_id: str
    received_at: float


class InferenceRoute:
    """Answers all of `/v2`. `draining` makes it not ready. access: None where there are no keys."""

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        predictor: Predictor,
        metrics: GatewayMetrics,
        new_id: Callable[[], str],
        clock: Callable[[], float],
        release: str,
        access: AccessGate | None = None,
    ) -> None:
        self._models, self._predictor, self._metrics = models, predictor, metrics
        self._new_id, self._clock, self._access = new_id, clock, access
        self._server = {"name": SERVER_NAME, "version": release, "extensions": EXTENSIONS}
        self._observe_ok = metrics.requests.child("POST", ROUTE, "200").observe
        self.draining = False

    @staticmethod
    def serves(path: str) -> bool:
        """Whether a path is this route's."""
        return path == PREFIX or path.startswith(PREFIX + "/")

    def model_at(self, path: str) -> ServedModel | None:
        """Find the model that one of this route's paths names."""
        on_model = _MODEL_PATH.fullmatch(path)
        return None if on_model is None else self._models.get(on_model["model"])

    async def answer(self, exchange: Exchange) -> None:
        """Answer one request."""
        headers = exchange.fields
        request = _Request(exchange, exchange.path, headers, request_id_of(headers, self._new_id), self._clock())
        try:
            await self._answer(request)
        except GatewayError as error:
            self._refuse(request, error)
        except Exception:
            # As on the predict route: the caller learns no more than that it happened.
            logger.exception("an inference request failed", extra={"request_id": request.request_id})
            self._metrics.errors.add("internal_error")
            document = {"error": "the gateway failed; its log says why"}
            self._respond(request, 500, msgspec.json.encode(document), _JSON)

    async def _answer(self, request: _Request) -> None:
        path, method = request.path, request.exchange.method
        on_model = _MODEL_PATH.fullmatch(path)
        if on_model is None and path not in _SERVER_PATHS:
            raise UnknownPath(f"there is nothing at {path[:200]!r}")
        infers = on_model is not None and on_model["action"] == "infer"
        if method not in (("POST",) if infers else ("GET", "HEAD")):
            raise MethodNotAllowed("POST" if infers else "GET, HEAD")
        if on_model is not None and infers:
            await self._infer(on_model, request)
            return
        status, document = self._server_state(path) if on_model is None else self._described(on_model)
        self._respond(request, status, msgspec.json.encode(document), _JSON)

    # Inference -----------------------------------------------------------------------------------------------------

    async def _infer(self, on_model: re.Match[str], request: _Request) -> None:
        model = self._models.get(on_model["model"])
        version = on_model["version"]
        # In this order, as on the predict route: what is refused costs no decoding.
        name = None if model is None else model.name
        key = None if self._access is None else self._access.admit(request.headers, SCOPES, name)
        if model is None or (version is not None and version not in model.versions):
            raise self._unknown(on_model)
        # What the body says of priority is not known yet: it is left unread only where no request would be admitted.
        self._predictor.check_room(model, priority_of(request.headers, Priority.CRITICAL))
        asked = await _decoded(request.exchange, model.route.limits.body_bytes_max)
        prediction = await self._predictor.predict(_call(model, version, asked, request, key))
        response = _response(model, asked, prediction)
        document, buffers = encode_response(response, _binary_outputs(asked, response.outputs))
        headers = [(SERVER_TIMING, timing(prediction))]
        if buffers:
            headers.append((INFERENCE_HEADER_CONTENT_LENGTH, b"%d" % len(document)))
        self._respond(request, 200, b"".join((document, *buffers)), _BINARY if buffers else _JSON, headers)
        self._observe_ok(self._clock() - request.received_at)

    # Descriptions --------------------------------------------------------------------------------------------------

    def _server_state(self, path: str) -> tuple[int, Any]:
        if path == "/v2/health/live":
            return 200, {"live": True}
        if path == "/v2/health/ready":
            ready = not self.draining and all(model.ready for model in self._models.values())
            return 200 if ready else 503, {"ready": ready}
        return 200, self._server

    def _described(self, on_model: re.Match[str]) -> tuple[int, Any]:
        model = self._models.get(on_model["model"])
        named = on_model["version"]
        if model is None or (named is not None and named not in model.versions):
            raise self._unknown(on_model)
        served = model.versions[named or model.route.default_version]
        if on_model["action"] == "ready":
            ready = not self.draining and (model.ready if named is None else served.ready)
            return 200 if ready else 503, {"name": model.name, "version": served.version, "ready": ready}
        return 200, _metadata(model, served)

    def _unknown(self, on_model: re.Match[str]) -> UnknownModel:
        model = self._models.get(on_model["model"])
        if model is None:
            known = ", ".join(sorted(self._models))
            return UnknownModel(f"no model {on_model['model'][:64]!r} is served here; there are: {known}")
        known = ", ".join(model.versions)
        return UnknownModel(f"{model.name} has no version {on_model['version'][:64]!r}; it has: {known}")

    # Answers -------------------------------------------------------------------------------------------------------

    def _refuse(self, request: _Request, error: GatewayError) -> None:
        status, headers, _ = problem.problem(error, request.request_id)
        self._metrics.errors.add(error.code)
        self._respond(request, status, error_document(error.detail), _JSON, headers)
        self._metrics.requests.child("POST", ROUTE, str(status)).observe(self._clock() - request.received_at)

    def _respond(
        self,
        request: _Request,
        status: int,
        body: bytes,
        content_type: bytes,
        headers: problem.Headers | None = None,
    ) -> None:
        request.exchange.respond(status, problem.head_lines(request.request_id, content_type, headers), body)


def error_document(detail: str) -> bytes:
    """Encode the protocol's form of an error."""
    return msgspec.json.encode({"error": detail})


def _call(model: ServedModel, version: str | None, asked: InferenceRequest, request: _Request, key: Key | None) -> Call:
    headers = request.headers
    budget = budget_ms(headers, model.route.deadline_ms)
    parameters = asked.parameters or {}
    unit = parameters.get("unit")
    if unit is not None and (isinstance(unit, bool) or not isinstance(unit, str | int)):
        raise InvalidRequest("the unit must be a string or a whole number", "parameters.unit")
    source = SentRows(asked.inputs, [output.name for output in asked.outputs])
    if source.count > model.route.limits.instances_max:
        raise TooManyInstances(f"{source.count} rows; the route takes at most {model.route.limits.instances_max}")
    attributes: dict[str, Any] = {name: parameters[name] for name in model.route.attributes if name in parameters}
    unsaid = _PRIORITY_BY_NUMBER[asked.priority]
    return Call(
        model,
        PredictRequest(features=attributes, unit=unit),
        source,
        request.request_id,
        priority_of(headers, unsaid),
        forced_variant(headers, key),
        request.received_at,
        budget if asked.timeout_us is None else min(budget, asked.timeout_us / 1000),
        0,  # tensors are held as the bytes that they came in, which the log counts by itself
        version,
        unit_optional=version is not None or not is_split(model),
    )


def _response(model: ServedModel, request: InferenceRequest, prediction: Prediction) -> InferenceResponse:
    scored = prediction.scored
    by_name = dict(zip(scored.names, scored.outputs, strict=True))
    datatypes = {o.name: o.dtype for o in scored.planned.signature.outputs} if scored.planned else {}
    names = [output.name for output in request.outputs] or list(by_name)
    assignment = prediction.assignment
    parameters: dict[str, Parameter] = {"prediction_id": prediction.prediction_id}
    if assignment.variant is not None and assignment.experiment is not None:
        parameters["experiment"] = assignment.experiment.name
        parameters["variant_assigned"] = assignment.variant.name
    if prediction.variant_served is not None:
        parameters["variant"] = prediction.variant_served
    if prediction.degraded:
        parameters["degraded"] = ",".join(prediction.degraded)
    return InferenceResponse(
        model_name=model.name,
        model_version=scored.planned.version if scored.planned else "static",
        outputs=tuple(_tensor(name, by_name[name], datatypes.get(name, STATIC_DATATYPE)) for name in names),
        id=request.id,
        parameters=parameters,
    )


def _tensor(name: str, values: list[Any], datatype: str) -> Tensor:
    array: np.ndarray[Any, Any] = np.array(values, dtype=object if datatype == BYTES else DTYPE_BY_DATATYPE[datatype])
    return tensor_of(name, array, datatype)


def _binary_outputs(request: InferenceRequest, outputs: Iterable[Tensor]) -> list[str]:
    if not request.outputs:
        return [tensor.name for tensor in outputs] if request.binary_output else []
    return [o.name for o in request.outputs if (request.binary_output if o.binary is None else o.binary)]


def _metadata(model: ServedModel, served: ServedVersion) -> dict[str, Any]:
    if served.planned is None:
        raise ModelNotReady(f"{model.name}@{served.version}: {served.problem}")
    signature = served.planned.signature
    return {
        "name": model.name,
        "versions": list(model.versions),
        "platform": "sekisho",
        "inputs": [{"name": i.name, "datatype": i.dtype, "shape": i.shape} for i in signature.inputs],
        "outputs": [{"name": o.name, "datatype": o.dtype, "shape": o.shape} for o in signature.outputs],
    }


async def _decoded(exchange: Exchange, bytes_max: int) -> InferenceRequest:
    try:
        body = await inflated(exchange.body, encoding_of(exchange.headers), bytes_max)
        return decode_request(body, json_length(exchange.headers))
    except EncodingUnknown as error:
        raise UnsupportedMediaType(str(error), "content-encoding") from None
    except InflatedTooLarge as error:
        raise BodyTooLarge(str(error)) from None
    except (EncodingCorrupt, InferenceFormatError) as error:
        raise MalformedRequest(str(error)) from None
