"""What a gateway tells of itself on its admin port."""

import http.client
from collections import defaultdict

import msgspec
from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 5.0
METRICS_BYTES_MAX = 4 * 1024 * 1024


class CountersUnavailable(RuntimeError):
    """The gateway does not tell them."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the gateway's /metrics: {problem}")
        self.problem = problem


class GatewayCounters(msgspec.Struct, frozen=True, kw_only=True):
    """Counted since the gateway started: rows of its prediction log, and what it refused."""

    rows_offered: int
    rows_written: int
    rows_dropped: int
    rows_pending: int
    shed: int
    errors: int


def read_counters(admin_port: int) -> GatewayCounters:
    """Ask a gateway on this machine. Raises CountersUnavailable."""
    connection = http.client.HTTPConnection("127.0.0.1", admin_port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/metrics")
        return parse_counters(connection.getresponse().read(METRICS_BYTES_MAX).decode())
    except (OSError, http.client.HTTPException) as error:
        raise CountersUnavailable(repr(error)) from error
    finally:
        connection.close()


def parse_counters(exposition: str) -> GatewayCounters:
    """Sum each metric over its labels. Raises CountersUnavailable where one of the log's is missing."""
    sums: defaultdict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            sums[sample.name] += sample.value
    for name in ("sekisho_log_rows_offered_total", "sekisho_log_rows_written_total", "sekisho_log_rows_pending"):
        if name not in sums:
            raise CountersUnavailable(f"no {name} among them")
    # These have a series for each label that was met, and so none before the first drop, shed request or error.
    return GatewayCounters(
        rows_offered=int(sums["sekisho_log_rows_offered_total"]),
        rows_written=int(sums["sekisho_log_rows_written_total"]),
        rows_dropped=int(sums["sekisho_log_rows_dropped_total"]),
        rows_pending=int(sums["sekisho_log_rows_pending"]),
        shed=int(sums["sekisho_shed_total"]),
        errors=int(sums["sekisho_errors_total"]),
    )
