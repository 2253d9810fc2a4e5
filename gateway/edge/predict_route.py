"""`POST /v1/models/{model}:predict`: bytes in, bytes out, with nothing between the server and the data path."""

import logging
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from gateway.access.gate import AccessGate
from gateway.access.keys_file import Scope
from gateway.admission import Priority
from gateway.edge import problem
from gateway.edge.call_headers import CALL_HEADERS, budget_ms, forced_variant, priority_of, timing
from gateway.edge.http_exchange import check_json, decode_json, request_id_of
from gateway.errors import GatewayError, MethodNotAllowed, UnknownModel
from gateway.feature_rows import FeatureAssembler
from gateway.metrics import GatewayMetrics
from gateway.predict import STATIC_VERSION, Prediction, Predictor
from gateway.predict_request import PredictAnswer, PredictRequest
from gateway.row_sources import StoredRows
from gateway.served_models import ServedModel
from gateway.variant_draw import Call
from http_server.exchange import Exchange

PREFIX: Final = "/v1/models/"
SUFFIX: Final = ":predict"
ROUTE: Final = "/v1/models/{model}:predict"
"""The metric label: a template, so that no caller can make a new series."""

SCOPES: Final = (Scope.PREDICT,)
"""Of which a caller's key must have one."""

BODY_BYTES_CHEAP: Final = 4_096
"""Above it a body costs more to decode than an answer of 503: whether there is room is asked before."""

_HEAD_OK: Final = b"content-type: application/json\r\nx-request-id: %b\r\nserver-timing: %b\r\n"

logger = logging.getLogger(__name__)


class PredictRoute:
    """Answers one route. access: None where there are no keys, and anyone may ask."""

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        predictor: Predictor,
        features: FeatureAssembler,
        metrics: GatewayMetrics,
        new_id: Callable[[], str],
        clock: Callable[[], float],
        access: AccessGate | None = None,
    ) -> None:
        self._models, self._predictor, self._features, self._metrics = models, predictor, features, metrics
        self._new_id, self._clock, self.access = new_id, clock, access
        self._decoder = msgspec.json.Decoder(PredictRequest)
        self._encode = msgspec.json.Encoder().encode
        self._observe_ok = metrics.requests.child("POST", ROUTE, "200").observe

    @staticmethod
    def serves(path: str) -> bool:
        """Whether a path is this route's."""
        return path.startswith(PREFIX) and path.endswith(SUFFIX)

    def model_at(self, path: str) -> ServedModel | None:
        """Find the model that one of this route's paths names."""
        return self._models.get(path[len(PREFIX) : -len(SUFFIX)])

    async def answer(self, exchange: Exchange, model: ServedModel | None) -> None:
        """Answer one request: 200, or a problem document. model: None where the path names none that is served."""
        received_at = self._clock()
        headers = exchange.fields
        request_id = request_id_of(headers, self._new_id)
        try:
            call = self._call(exchange, model, headers, request_id, received_at)
            prediction = await self._predictor.predict(call)
        except GatewayError as error:
            self._refuse(exchange, error, request_id, received_at)
        except Exception:
            # Nothing that a caller sends may come here. If it does, the caller learns no more than that it happened.
            logger.exception("a predict request failed", extra={"request_id": request_id})
            self._metrics.errors.add("internal_error")
            body = problem.document(500, "internal_error", "the gateway failed; its log says why", request_id)
            exchange.respond(500, problem.head_lines(request_id, problem.CONTENT_TYPE), body)
        else:
            head = _HEAD_OK % (request_id.encode(), timing(prediction))
            exchange.respond(200, head, self._answer(call, prediction))
            self._observe_ok(self._clock() - received_at)

    def _call(
        self,
        exchange: Exchange,
        model: ServedModel | None,
        headers: dict[bytes, bytes],
        request_id: str,
        received_at: float,
    ) -> Call:
        # Authenticate, count against the key's rate, look for room, then read: what is refused costs no decoding.
        name = None if model is None else model.name
        key = None if self.access is None else self.access.admit(headers, SCOPES, name)
        if exchange.method != "POST":
            raise MethodNotAllowed("POST")
        if model is None:
            name, known = exchange.path[len(PREFIX) : -len(SUFFIX)], ", ".join(sorted(self._models))
            raise UnknownModel(f"no model {name[:64]!r} is served here; there are: {known}", "model")
        check_json(headers)
        budget: float = model.route.deadline_ms
        priority, forced = Priority.DEFAULT, None
        if not headers.keys().isdisjoint(CALL_HEADERS):
            budget = budget_ms(headers, model.route.deadline_ms)
            priority = priority_of(headers)
            forced = forced_variant(headers, key)
        if len(exchange.body) > BODY_BYTES_CHEAP:
            self._predictor.check_room(model, priority)
        request: PredictRequest = decode_json(self._decoder, exchange.body)
        source = StoredRows(self._features, request)
        return Call(model, request, source, request_id, priority, forced, received_at, budget, len(exchange.body))

    def _answer(self, call: Call, prediction: Prediction) -> bytes:
        scored, assignment = prediction.scored, prediction.assignment
        answer = PredictAnswer(
            predictions=prediction.predictions,
            model=call.model.name,
            version=scored.planned.version if scored.planned is not None else STATIC_VERSION,
            variant=prediction.variant_served,
            experiment=assignment.experiment.name if assignment.variant and assignment.experiment else None,
            prediction_id=prediction.prediction_id,
            degraded=prediction.degraded,
        )
        return self._encode(answer)

    def _refuse(self, exchange: Exchange, error: GatewayError, request_id: str, received_at: float) -> None:
        status, headers, body = problem.problem(error, request_id)
        self._metrics.errors.add(error.code)
        exchange.respond(status, problem.head_lines(request_id, problem.CONTENT_TYPE, headers), body)
        self._metrics.requests.child("POST", ROUTE, str(status)).observe(self._clock() - received_at)
