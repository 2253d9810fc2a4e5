"""`POST /v1/models/{model}:predict`: bytes in, bytes out, with nothing between the server and the data path."""

import logging
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from contracts.headers import REQUEST_ID, SERVER_TIMING
from gateway.edge import problem
from gateway.edge.call_headers import budget_ms, forced_variant, priority_of, timing
from gateway.edge.http_exchange import (
    Receive,
    Scope,
    Send,
    check_json,
    decode_json,
    read_body,
    request_id_of,
    respond,
)
from gateway.errors import GatewayError, MethodNotAllowed, UnknownModel
from gateway.feature_rows import FeatureAssembler
from gateway.metrics import GatewayMetrics
from gateway.predict import Call, Prediction, Predictor
from gateway.predict_request import PredictAnswer, PredictRequest
from gateway.routes_file import BODY_BYTES_DEFAULT
from gateway.row_sources import StoredRows
from gateway.served_models import ServedModel

PREFIX: Final = "/v1/models/"
SUFFIX: Final = ":predict"
ROUTE: Final = "/v1/models/{model}:predict"
"""The metric label: a template, so that no caller can make a new series."""

logger = logging.getLogger(__name__)


class PredictRoute:
    """A bare ASGI callable for one route. `draining` makes it ask clients to close their connections."""

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        predictor: Predictor,
        features: FeatureAssembler,
        metrics: GatewayMetrics,
        new_id: Callable[[], str],
        clock: Callable[[], float],
    ) -> None:
        self._models, self._predictor, self._features, self._metrics = models, predictor, features, metrics
        self._new_id, self._clock = new_id, clock
        self._decoder = msgspec.json.Decoder(PredictRequest)
        self._encode = msgspec.json.Encoder().encode
        self._observe_ok = metrics.requests.child("POST", ROUTE, "200").observe
        self.draining = False

    @staticmethod
    def serves(path: str) -> bool:
        """Whether a path is this route's."""
        return path.startswith(PREFIX) and path.endswith(SUFFIX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request: 200, or a problem document."""
        received_at = self._clock()
        headers = dict(scope["headers"])
        request_id = request_id_of(headers, self._new_id)
        try:
            call = await self._call(scope, headers, receive, request_id, received_at)
            prediction = await self._predictor.predict(call)
        except GatewayError as error:
            await self._refuse(send, error, request_id, received_at)
        except Exception:
            # Nothing that a caller sends may come here. If it does, the caller learns no more than that it happened.
            logger.exception("a predict request failed", extra={"request_id": request_id})
            self._metrics.errors.add("internal_error")
            body = problem.document(500, "internal_error", "the gateway failed; its log says why", request_id)
            await respond(send, 500, self._common(request_id), body, problem.CONTENT_TYPE)
        else:
            answer_headers = [*self._common(request_id), (SERVER_TIMING, timing(prediction))]
            await respond(send, 200, answer_headers, self._answer(call, prediction), b"application/json")
            self._observe_ok(self._clock() - received_at)

    async def _call(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, request_id: str, received_at: float
    ) -> Call:
        if scope["method"] != "POST":
            raise MethodNotAllowed("POST")
        name = scope["path"][len(PREFIX) : -len(SUFFIX)]
        model = self._models.get(name)
        if model is None:
            # The body is still read (and bounded), so that the connection stays usable.
            await read_body(headers, receive, BODY_BYTES_DEFAULT)
            known = ", ".join(sorted(self._models))
            raise UnknownModel(f"no model {name[:64]!r} is served here; there are: {known}", "model")
        check_json(headers)
        budget = budget_ms(headers, model.route.deadline_ms)
        priority = priority_of(headers)
        forced = forced_variant(headers)
        body = await read_body(headers, receive, model.route.limits.body_bytes_max)
        request: PredictRequest = decode_json(self._decoder, body)
        source = StoredRows(self._features, request)
        return Call(model, request, source, request_id, priority, forced, received_at, budget, len(body))

    def _answer(self, call: Call, prediction: Prediction) -> bytes:
        scored, assignment = prediction.scored, prediction.assignment
        answer = PredictAnswer(
            predictions=prediction.predictions,
            model=call.model.name,
            version=scored.planned.version if scored.planned is not None else "static",
            variant=prediction.variant_served,
            experiment=assignment.experiment.name if assignment.variant and assignment.experiment else None,
            prediction_id=prediction.prediction_id,
            degraded=prediction.degraded,
        )
        return self._encode(answer)

    async def _refuse(self, send: Send, error: GatewayError, request_id: str, received_at: float) -> None:
        status, headers, body = problem.problem(error, request_id)
        self._metrics.errors.add(error.code)
        if error.code == "body_too_large":
            headers.append((b"connection", b"close"))  # the rest of the body is not read
        await respond(send, status, [*self._common(request_id), *headers], body, problem.CONTENT_TYPE)
        self._metrics.requests.child("POST", ROUTE, str(status)).observe(self._clock() - received_at)

    def _common(self, request_id: str) -> list[tuple[bytes, bytes]]:
        headers = [(REQUEST_ID, request_id.encode())]
        if self.draining:
            headers.append((b"connection", b"close"))
        return headers
