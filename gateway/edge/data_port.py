"""The data port: three routes of its own, and FastAPI for everything else."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from gateway.access.keys_file import Scope
from gateway.edge import inference_route, ofrep_route, outcomes_route, predict_route, problem
from gateway.edge.http_exchange import check_json, request_id_of
from gateway.edge.inference_route import InferenceRoute
from gateway.edge.outcomes_route import OutcomesRoute
from gateway.edge.predict_route import PredictRoute
from gateway.errors import GatewayError, MethodNotAllowed, UnknownModel
from gateway.metrics import GatewayMetrics
from gateway.routes_file import BODY_BYTES_DEFAULT
from gateway.served_models import ServedModel
from http_server.asgi import AsgiApplication, AsgiBridge
from http_server.exchange import Exchange, Header, Refusal, path_of

BODY_BYTES_UNREAD: Final = 16 * 1024
"""Of what is sent to a path that takes no body, or is not there: it is read for the answer's sake, and needs no key."""

INFER: Final = "/infer"
OFREP: Final = ofrep_route.PATH.partition("{")[0]
OFREP_SCOPES: Final = (Scope.PREDICT, Scope.EXPERIMENT)


class DataPort:
    """An `http_server.Application` that looks ahead: who may not send a body is told so before it is read."""

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        predict: PredictRoute,
        inference: InferenceRoute,
        outcomes: OutcomesRoute,
        rest: AsgiApplication,
        metrics: GatewayMetrics,
        new_id: Callable[[], str],
    ) -> None:
        self._predict, self._inference, self._outcomes = predict, inference, outcomes
        self._rest, self._metrics, self._new_id = AsgiBridge(rest, self.refusal, self._fault), metrics, new_id
        self._access = predict.access  # one gate stands before all of this port's routes
        self._models = models
        self._model_by_target: dict[bytes, ServedModel] = {}
        self.follow_models()
        self._create_task = asyncio.get_running_loop().create_task

    def follow_models(self) -> None:
        """Take note that other models are served than before, or the same ones otherwise."""
        # The usual spelling of a path is found as it stands on the wire; any other is decoded and looked at.
        self._model_by_target = {
            f"{predict_route.PREFIX}{name}{predict_route.SUFFIX}".encode(): model
            for name, model in self._models.items()
        }

    def body_bytes_max(self, target: bytes) -> int:
        """Return the limit of the model's route, or of what else is there."""
        model = self._model_by_target.get(target)
        if model is None:
            path = path_of(target)
            if path == outcomes_route.PATH:
                return outcomes_route.BODY_BYTES_MAX
            if self._predict.serves(path):
                model = self._predict.model_at(path)
            elif path.endswith(INFER):
                model = self._inference.model_at(path)
            elif not path.startswith(OFREP):
                return BODY_BYTES_UNREAD
        return BODY_BYTES_DEFAULT if model is None else model.route.limits.body_bytes_max

    def before_body(self, method: str, target: bytes, fields: dict[bytes, bytes]) -> Refusal | None:
        """Refuse what its route would refuse whatever the body says: key, scope, model, rate, method, type.

        Takes nothing of a key's rate: the route does, once it has the body.
        """
        path = path_of(target)
        try:
            self._look(method, path, fields)
        except GatewayError as error:
            return self._refused(error, path, fields)
        return None

    def _look(self, method: str, path: str, fields: dict[bytes, bytes]) -> None:
        if path == outcomes_route.PATH:
            self._look_at_key(fields, outcomes_route.SCOPES)
        elif self._predict.serves(path):
            self._look_at_model(fields, predict_route.SCOPES, self._predict.model_at(path))
        elif path.endswith(INFER) and self._inference.serves(path):
            self._look_at_model(fields, inference_route.SCOPES, self._inference.model_at(path))
        elif path.startswith(OFREP):
            self._look_at_key(fields, OFREP_SCOPES)
        else:
            return  # what takes no body answers by itself, once it has read the little that it takes
        if method != "POST":
            raise MethodNotAllowed("POST")
        if not path.endswith(INFER):
            check_json(fields)

    def _look_at_model(self, fields: dict[bytes, bytes], scopes: tuple[Scope, ...], model: ServedModel | None) -> None:
        self._look_at_key(fields, scopes, None if model is None else model.name)
        if model is None:
            known = ", ".join(sorted(self._models))
            raise UnknownModel(f"no model of that name is served here; there are: {known}", "model")

    def _look_at_key(self, fields: dict[bytes, bytes], scopes: tuple[Scope, ...], model: str | None = None) -> None:
        if self._access is not None:
            self._access.admit(fields, scopes, model, ahead=True)

    def _refused(self, error: GatewayError, path: str, fields: dict[bytes, bytes]) -> Refusal:
        self._metrics.errors.add(error.code)
        request_id = request_id_of(fields, self._new_id)
        status, headers, body = problem.problem(error, request_id)
        if not self._inference.serves(path):
            return status, problem.head_lines(request_id, problem.CONTENT_TYPE, headers), body
        head = problem.head_lines(request_id, b"application/json", headers)
        return status, head, inference_route.error_document(error.detail)

    def serve(self, exchange: Exchange) -> None:
        """Pass the request on."""
        model = self._model_by_target.get(exchange.target)
        if model is not None:
            self._create_task(self._predict.answer(exchange, model))
            return
        path = exchange.path
        if self._predict.serves(path):
            self._create_task(self._predict.answer(exchange, self._predict.model_at(path)))
        elif self._inference.serves(path):
            self._create_task(self._inference.answer(exchange))
        elif path == outcomes_route.PATH:
            self._outcomes.answer(exchange)
        else:
            self._rest.serve(exchange)

    def refusal(self, status: int, detail: str, target: bytes, headers: list[Header]) -> tuple[bytes, bytes]:
        """Write the answer to what never became a request, in the form of the port's part that it was meant for."""
        self._metrics.errors.add(problem.ERROR_BY_STATUS[status].code)
        request_id = request_id_of(dict(headers), self._new_id)
        if not self._inference.serves(path_of(target)):
            return problem.refusal(status, detail, request_id)
        head = problem.head_lines(request_id, b"application/json", problem.refusal_headers(status))
        return head, inference_route.error_document(detail)

    def _fault(self) -> tuple[bytes, bytes]:
        return problem.fault(self._new_id())
