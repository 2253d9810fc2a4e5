import socket

import pytest

from settings.ports import PortTaken, listen, refuse_taken_port


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_taken_port_is_told_with_the_flag_that_moves_it(taken: int):
    with pytest.raises(PortTaken) as caught:
        listen("127.0.0.1", taken, "--admin-port")
    assert str(caught.value) == f"port {taken} on 127.0.0.1 is taken: choose another one with --admin-port"
    assert (caught.value.host, caught.value.port, caught.value.flag) == ("127.0.0.1", taken, "--admin-port")


def test_a_port_that_is_taken_on_every_interface_is_taken_on_loopback():
    with socket.create_server(("0.0.0.0", 0)) as listener, pytest.raises(PortTaken):
        refuse_taken_port(listener.getsockname()[1], "--port")


def test_a_port_is_free_again_at_once_although_a_connection_lingers():
    with listen("127.0.0.1", 0, "--port") as first:
        port = first.getsockname()[1]
        first.setblocking(True)
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = first.accept()
            accepted.close()  # this side closes first, so that its end waits in TIME_WAIT
    refuse_taken_port(port, "--port")
    listen("127.0.0.1", port, "--port").close()


def test_the_listener_accepts_and_does_not_block():
    with listen("127.0.0.1", 0, "--port") as listener:
        assert listener.getblocking() is False
        with pytest.raises(BlockingIOError):
            listener.accept()
        with socket.create_connection(listener.getsockname()):
            pass


def test_an_ipv6_address_is_listened_on():
    try:
        listener = listen("::1", 0, "--port")
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with listener:
        assert listener.family is socket.AF_INET6


@pytest.mark.parametrize("host", ["192.0.2.1", "not an address"])
def test_a_wrong_address_is_another_error_than_a_taken_port(host: str):
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the claim is that it is no subclass
        listen(host, 0, "--port")
    assert not isinstance(caught.value, PortTaken)
