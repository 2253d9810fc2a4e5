import os
import resource
import signal
from collections.abc import Iterator

import psutil
import pytest

from tests.fault.drill import drill
from tests.fault.paired_stack import DEADLINE_S, PairedStack, ranking_questions
from tests.integration.gateway_client import until
from tests.integration.gateway_stack import Gateway

pytestmark = pytest.mark.fault

FILE_BYTES_MAX = 1
"""No file of the process may grow beyond it: writes fail as on a full disk, and nobody needs to be root for it."""


def log_of(gateway) -> dict:
    return gateway.admin("/admin/v1/status")["log"]


@pytest.fixture(scope="module")
def logging_gateway(paired: PairedStack) -> Iterator[Gateway]:
    with paired.further_gateway() as gateway:
        yield gateway


def test_a_log_whose_disk_is_full_loses_rows_that_it_counts_and_slows_nobody(paired, logging_gateway, timing, keep):
    gateway = logging_gateway
    limits = resource.prlimit(gateway.child.pid, resource.RLIMIT_FSIZE)

    def make_room() -> None:
        resource.prlimit(gateway.child.pid, resource.RLIMIT_FSIZE, limits)

    with drill(gateway, ranking_questions(paired), timing, deadline_s=DEADLINE_S) as running:
        with running.fault(make_room):
            resource.prlimit(gateway.child.pid, resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, limits[1]))
            until("rows are lost", lambda: log_of(gateway)["rows_dropped"].get("disk", 0) > 0)
        written = log_of(gateway)["rows_written"]
        until("rows are written again", lambda: log_of(gateway)["rows_written"] > written)
    running.held.assert_returned(gateway)
    until("nothing is pending", lambda: log_of(gateway)["rows_pending"] == 0)
    log = log_of(gateway)
    running.figures["rows dropped"] = f"{log['rows_dropped']['disk']:,} of {log['rows_offered']:,}"
    keep(running.record(8, "the log's disk is full for a while"))
    assert set(running.load.kinds()) == {"whole"}
    assert log["rows_offered"] == log["rows_written"] + sum(log["rows_dropped"].values())


def test_a_log_process_that_stalls_costs_no_answer_and_no_row(paired, logging_gateway, timing, keep):
    gateway = logging_gateway
    children = psutil.Process(gateway.child.pid).children()
    (writer,) = (child for child in children if "prediction_log" in str(child.cmdline()))
    dropped = log_of(gateway)["rows_dropped"]
    with (
        drill(gateway, ranking_questions(paired), timing, deadline_s=DEADLINE_S) as running,
        running.fault(lambda: os.kill(writer.pid, signal.SIGCONT)),
    ):
        os.kill(writer.pid, signal.SIGSTOP)
    running.held.assert_returned(gateway)
    gateway.wait_for_log()
    keep(running.record(8, "the process that makes the log's files stalls for a while"))
    assert set(running.load.kinds()) == {"whole"}
    assert log_of(gateway)["rows_dropped"] == dropped
