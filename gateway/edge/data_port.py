"""The data port: three routes of its own, and FastAPI for everything else."""

import asyncio
from collections.abc import Callable, Mapping

from gateway.edge import inference_route, outcomes_route, predict_route, problem
from gateway.edge.http_exchange import request_id_of
from gateway.edge.inference_route import InferenceRoute
from gateway.edge.outcomes_route import OutcomesRoute
from gateway.edge.predict_route import PredictRoute
from gateway.metrics import GatewayMetrics
from gateway.routes_file import BODY_BYTES_DEFAULT
from gateway.served_models import ServedModel
from http_server.asgi import AsgiApplication, AsgiBridge
from http_server.exchange import Exchange, Header, path_of


class DataPort:
    """An `http_server.Application`."""

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
        self._rest, self._metrics, self._new_id = AsgiBridge(rest, self._fault), metrics, new_id
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
            model = self._predict.model_at(path) if self._predict.serves(path) else self._inference.model_at(path)
        return BODY_BYTES_DEFAULT if model is None else model.route.limits.body_bytes_max

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
