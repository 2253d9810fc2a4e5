"""`POST /v1/outcomes`: what happened after a prediction, one outcome or a list of them, appended to the outcome log."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec

from gateway.access.gate import AccessGate
from gateway.access.keys_file import Scope
from gateway.edge import problem
from gateway.edge.http_exchange import check_json, decode_json, request_id_of
from gateway.errors import GatewayError, InvalidRequest, MethodNotAllowed, OutcomesNotAccepted, TooManyInstances
from gateway.metrics import GatewayMetrics
from gateway.prediction_log.log_writer import LogWriter
from gateway.prediction_log.outcome_table import OutcomeEntry, OutcomeTable
from http_server.exchange import Exchange

PATH: Final = "/v1/outcomes"
SCOPES: Final = (Scope.OUTCOME,)
BODY_BYTES_MAX: Final = 4 * 1024 * 1024
OUTCOMES_MAX: Final = 10_000
OUTCOME_BYTES: Final = 512
"""What one outcome is taken to hold in memory."""

VALUE_MAX: Final = 1e15
"""Of an outcome: squares of larger ones, added up, leave no digit of the others."""

FUTURE_TOLERANCE: Final = timedelta(hours=1)
"""How far ahead of this machine's clock an outcome's time may be."""

YEAR_1_US: Final = (datetime.min - datetime(1970, 1, 1)) // timedelta(microseconds=1)  # noqa: DTZ901, DTZ001 - both UTC
"""The first instant that Python, and so a reader of the log, has a date for."""

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Metric = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_.:-]{0,127}$")]
_PredictionId = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
]


class Outcome(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One outcome, keyed by prediction and row, or by unit. `at` left out: now."""

    metric: _Metric
    value: float
    prediction_id: _PredictionId | None = None
    row: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    unit: _Text | None = None
    at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class OutcomesRoute:
    """Answers one route.

    Accepted outcomes are answered 202 with their number; a list is taken whole or not at all. access: None where there
    are no keys.
    """

    def __init__(
        self,
        log: LogWriter,
        metrics: GatewayMetrics,
        new_id: Callable[[], str],
        now_us: Callable[[], int],
        access: AccessGate | None = None,
    ) -> None:
        self._log, self._metrics, self._new_id, self._now_us, self._access = log, metrics, new_id, now_us, access
        self._table = OutcomeTable()
        self._decoder = msgspec.json.Decoder(Annotated[list[Outcome], msgspec.Meta(min_length=1)] | Outcome)

    def answer(self, exchange: Exchange) -> None:
        """Answer one request: 202, or a problem document."""
        headers = exchange.fields
        request_id = request_id_of(headers, self._new_id)
        try:
            if self._access is not None:
                self._access.admit(headers, SCOPES)
            if exchange.method != "POST":
                raise MethodNotAllowed("POST")
            check_json(headers)
            given = decode_json(self._decoder, exchange.body)
            accepted = self._accept(given if isinstance(given, list) else [given], listed=isinstance(given, list))
        except GatewayError as error:
            self._metrics.errors.add(error.code)
            status, more, body = problem.problem(error, request_id)
            exchange.respond(status, problem.head_lines(request_id, problem.CONTENT_TYPE, more), body)
        else:
            exchange.respond(202, problem.head_lines(request_id, b"application/json"), b'{"accepted":%d}' % accepted)

    def _accept(self, outcomes: list[Outcome], *, listed: bool) -> int:
        if len(outcomes) > OUTCOMES_MAX:
            raise TooManyInstances(f"{len(outcomes)} outcomes; at most {OUTCOMES_MAX} are taken at once")
        now_us = self._now_us()
        entries = [_entry(outcome, f"[{i}]" if listed else "", now_us) for i, outcome in enumerate(outcomes)]
        if not self._log.has_room(len(entries), len(entries) * OUTCOME_BYTES):
            raise OutcomesNotAccepted("the outcome log is full; none was taken")
        for entry in entries:
            self._log.offer(self._table, entry, OUTCOME_BYTES)
        return len(entries)


def _entry(outcome: Outcome, where: str, now_us: int) -> OutcomeEntry:
    by_prediction = outcome.prediction_id is not None
    if by_prediction == (outcome.unit is not None):
        raise InvalidRequest("give either prediction_id (with row) or unit", f"{where}.prediction_id".lstrip("."))
    if outcome.row is not None and not by_prediction:
        raise InvalidRequest("row goes with prediction_id", f"{where}.row".lstrip("."))
    if not abs(outcome.value) <= VALUE_MAX:
        raise InvalidRequest(f"a number from {-VALUE_MAX:g} to {VALUE_MAX:g} is expected", f"{where}.value".lstrip("."))
    at_us = now_us
    if outcome.at is not None:
        at_us = (outcome.at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        if at_us > now_us + FUTURE_TOLERANCE // timedelta(microseconds=1):
            raise InvalidRequest(f"{outcome.at.isoformat()} lies in the future", f"{where}.at".lstrip("."))
        if at_us < YEAR_1_US:
            raise InvalidRequest(f"{outcome.at.isoformat()} lies before the year 1 in UTC", f"{where}.at".lstrip("."))
    row = (outcome.row or 0) if by_prediction else None
    return OutcomeEntry(now_us, outcome.prediction_id, row, outcome.unit, outcome.metric, outcome.value, at_us)
