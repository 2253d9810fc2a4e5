from collections.abc import Iterator

import pytest

from tests.integration.gateway_stack import Gateway, Stack


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
