"""What a client may send is bounded by what it is, and not by what comes with it."""

from conftest import Running
from test_connection import GET, answer, connect


def test_a_head_is_not_long_because_a_long_body_came_with_its_beginning(running: Running) -> None:
    body = b"x" * 60_000
    request = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with connect(running) as client:
        client.sendall(request + GET[:10])
        assert answer(client)[0] == 404
        client.sendall(GET[10:])
        assert answer(client)[0] == 200
