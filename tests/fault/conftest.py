from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fault.drill import FAST, FULL, Timing
from tests.fault.fault_record import FaultRecord, append_record
from tests.fault.paired_stack import PairedStack
from tests.integration.gateway_stack import Gateway, Stack


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what `make fault` gives: pytest reads it where this folder is named on its command line."""
    parser.addoption("--fault-full", action="store_true", help="faults last longer, under more load")
    parser.addoption("--fault-report", type=Path, metavar="FILE", help="append what each fault did, as JSON lines")


@pytest.fixture(scope="session")
def timing(request: pytest.FixtureRequest) -> Timing:
    """How long faults last."""
    return FULL if request.config.getoption("--fault-full", default=False) else FAST


@pytest.fixture(scope="session")
def keep(request: pytest.FixtureRequest) -> Callable[[FaultRecord], None]:
    """Keep a record where a report is asked for, and print it."""
    file = request.config.getoption("--fault-report", default=None)

    def keep_record(record: FaultRecord) -> None:
        print(record)
        if file is not None:
            append_record(file, record)

    return keep_record


@pytest.fixture(scope="session")
def stack(tmp_path_factory) -> Iterator[Stack]:
    """A whole system that tests may break, as long as they mend it."""
    system = Stack(tmp_path_factory.mktemp("stack"))
    try:
        system.start()
        yield system
    finally:
        system.stop()


@pytest.fixture
def gateway(stack: Stack) -> Gateway:
    return stack.gateway


@pytest.fixture(scope="session")
def paired(tmp_path_factory) -> Iterator[PairedStack]:
    """A whole system with two workers for every version, that tests may break, as long as they mend it."""
    system = PairedStack(tmp_path_factory.mktemp("paired"))
    try:
        system.start()
        yield system
    finally:
        system.stop()
