"""Ports: found before anything else is done, all addresses of a name on one, refusals that say what to do."""

import socket

import pytest

from server.listening import addresses, bound, listen


def test_a_free_port_is_found_and_told() -> None:
    with bound("127.0.0.1", 0) as sockets:
        (where,) = addresses(sockets)
        host, port = sockets[0].getsockname()
        assert where == f"http://{host}:{port}"
        assert port > 0
        assert sockets[0].proto == socket.IPPROTO_TCP, "asyncio gives TCP_NODELAY to these alone"
        with socket.socket() as early:
            assert early.connect_ex((host, port)), "nobody waits in a queue for a model that is still loading"
        listen(sockets)
        with socket.create_connection((host, port)):
            pass
    assert sockets[0].fileno() == -1


def test_all_addresses_of_a_name_share_one_port() -> None:
    with bound("localhost", 0) as sockets:
        assert len({each.getsockname()[1] for each in sockets}) == 1
        assert all(where.startswith(("http://127.0.0.1:", "http://[::1]:")) for where in addresses(sockets))


def test_a_taken_port_is_refused_with_host_port_and_remedy() -> None:
    with bound("127.0.0.1", 0) as sockets:
        port = sockets[0].getsockname()[1]
        listen(sockets)
        with pytest.raises(ValueError, match=rf"host '127\.0\.0\.1', port {port}: .* another --port"):  # noqa: SIM117
            with bound("127.0.0.1", port):
                pass


def test_of_two_that_start_together_one_is_refused() -> None:
    with bound("127.0.0.1", 0) as first, bound("127.0.0.1", first[0].getsockname()[1]) as second:
        listen(first)
        with pytest.raises(ValueError, match="another --port"):
            listen(second)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_a_host_that_is_not_here_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=f"host '{host}', port 8000: .* another --host"), bound(host, 8000):
        pass
