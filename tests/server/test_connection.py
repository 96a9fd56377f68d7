"""Connections of clients that stall, send too much or break off: raw sockets against the real server."""

import asyncio
import gc
import json
import logging
import socket
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from conftest import Running, run, settings
from uvicorn.server import ServerState

from server.bounds import MOST_HEAD, MOST_HEADERS, MOST_PIPELINED, MOST_URL
from server.connection import Connection
from server.service import Service

GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
Serve = Callable[..., Running]


@pytest.fixture
def serve(cache: Path, running: Running) -> Iterator[Serve]:
    """Starts a server around the shared model, with settings of the test's own."""
    started: list[Iterator[Running]] = []

    def start(**changes: object) -> Running:
        served = running.service
        started.append(run(Service(settings(cache, **changes), served.engine, served.table)))
        return next(started[-1])

    yield start
    for server in started:
        assert next(server, None) is None


def connect(running: Running) -> socket.socket:
    host, _, port = running.url.removeprefix("http://").rpartition(":")
    client = socket.create_connection((host, int(port)), timeout=60)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def everything(client: socket.socket) -> bytes:
    """All that comes until the server closes; a reset after the answer is a close, too."""
    received = b""
    try:
        while piece := client.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def answer(client: socket.socket) -> tuple[int, dict[str, str], Any]:
    """The next answer: status, headers by lower-case name, and what its JSON says."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):  # byte by byte, since another answer may follow
        head += client.recv(1) or pytest.fail(f"the connection ended after {head!r}")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = client.recv(int(headers["content-length"]), socket.MSG_WAITALL)
    return int(first.split()[1]), headers, json.loads(body)


def refusal(client: socket.socket, status: int) -> str:
    """The detail of a refusal that ends the connection."""
    got, headers, problem = answer(client)
    assert (got, problem["status"]) == (status, status)
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    assert everything(client) == b""
    return str(problem["detail"])


def counted(running: Running, status: int, route: str = "connection") -> float:
    """Answers with this status."""
    labels = {"route": route, "status": str(status)}
    return running.service.metrics.registry.get_sample_value("stitchserve_requests_total", labels) or 0.0


def post(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def test_a_client_that_says_nothing_is_sent_away(serve: Serve) -> None:
    with connect(serve(header_timeout_s=0.2)) as client:
        assert everything(client) == b""


def test_half_a_header_is_waited_for_so_long_only(serve: Serve) -> None:
    running = serve(header_timeout_s=0.2)
    with connect(running) as client:
        client.sendall(GET[:20])
        assert "header" in refusal(client, 408)
    with connect(running) as client:  # nor does a first request that was answered buy a second one more time
        client.sendall(GET + GET[:20])
        assert answer(client)[0] == 200
        assert "header" in refusal(client, 408)
    assert counted(running, 408) == 2


def test_line_ends_between_requests_do_not_keep_a_connection(serve: Serve) -> None:
    with connect(serve(header_timeout_s=0.2)) as client:
        client.sendall(GET)
        assert answer(client)[0] == 200
        client.sendall(b"\r\n")
        assert everything(client) == b""


def test_beyond_the_most_connections_is_503_until_one_goes(serve: Serve) -> None:
    running = serve(max_connections=2)
    first, second = connect(running), connect(running)
    for client in (first, second):
        client.sendall(GET)
        assert answer(client)[0] == 200
    with connect(running) as third:
        status, headers, problem = answer(third)
        assert (status, headers["retry-after"]) == (503, "1")
        assert "2 connections" in problem["detail"]
        assert everything(third) == b""
    assert counted(running, 503) == 1
    second.close()
    first.sendall(GET)
    assert answer(first)[0] == 200, "those that are in are served"
    while True:
        with connect(running) as fourth:
            fourth.sendall(GET)
            if answer(fourth)[0] == 200:
                break
    first.close()


def test_what_is_refused_unread_is_not_read_to_its_end(serve: Serve) -> None:
    with connect(serve()) as client:
        client.sendall(post("/classify", "Content-Type: image/jpeg", "Content-Length: 10000000000"))
        status, headers, _ = answer(client)
        assert (status, headers["connection"]) == (413, "close")
        with pytest.raises(OSError):  # noqa: PT011 - a reset or a broken pipe
            client.sendall(bytes(100_000_000))


def test_a_client_that_reads_only_after_it_has_sent_gets_its_refusal(serve: Serve) -> None:
    with connect(serve()) as client:
        client.sendall(post("/nowhere", "Content-Length: 5000000") + bytes(5_000_000))
        assert "Not Found" in refusal(client, 404)


def test_an_unread_body_that_has_come_ends_no_connection(serve: Serve) -> None:
    with connect(serve()) as client:
        client.sendall(post("/livez", "Content-Length: 5") + b"hello" + GET)
        status, headers, _ = answer(client)
        assert status == 405
        assert "connection" not in headers
        assert answer(client)[0] == 200


@pytest.mark.parametrize("size", [64, 1000])
def test_a_body_may_come_in_chunks(serve: Serve, sample: bytes, size: int) -> None:
    chunks = [sample[at : at + size] for at in range(0, len(sample), size)] + [b""]
    with connect(serve()) as client:
        client.sendall(post("/classify", "Content-Type: image/jpeg", "Transfer-Encoding: chunked"))
        client.sendall(b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks))
        assert answer(client)[0] == 200


def test_a_body_of_tiny_chunks_is_refused(serve: Serve) -> None:
    running = serve()
    with connect(running) as client:
        client.sendall(post("/classify", "Content-Type: image/jpeg", "Transfer-Encoding: chunked"))
        client.sendall(b"1\r\nx\r\n" * 2000)
        assert "chunks" in refusal(client, 400)
    assert counted(running, 400) == 1
    while running.service.bodies.arriving:  # the application learns that the client is gone
        pass


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /livez?" + b"x" * MOST_URL + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nA: " + b"x" * MOST_HEAD + b"\r\n\r\n", 431),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * MOST_HEADERS + b"\r\n", 431),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 10 * MOST_HEAD, 431),
        (b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n", 501),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"POST /classify HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /classify HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_or_too_long_a_one_is_a_problem(
    running: Running, caplog: pytest.LogCaptureFixture, head: bytes, status: int
) -> None:
    caplog.set_level(logging.INFO)
    before = counted(running, status)
    for size in (len(head), 1000):
        with connect(running) as client:
            for at in range(0, len(head), size):
                try:
                    client.sendall(head[at : at + size])
                except OSError:  # it was refused before its end
                    break
            detail = refusal(client, status)
            assert detail.startswith("the request cannot be read: ") == (status == 400)
            assert "callback" not in detail
    assert counted(running, status) == before + 2
    assert not any(record.exc_info for record in caplog.records)


def test_requests_may_be_sent_ahead_but_not_without_end(serve: Serve) -> None:
    running = serve()
    with connect(running) as client:
        client.sendall(GET * MOST_PIPELINED)
        assert [answer(client)[0] for _ in range(MOST_PIPELINED)] == [200] * MOST_PIPELINED
    with connect(running) as client:
        client.sendall(GET * 5000)
        assert everything(client).count(b"HTTP/1.1 400") == 1


def test_an_offer_to_upgrade_is_passed_over(serve: Serve, sample: bytes) -> None:
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk")
    request = post("/classify", "Content-Type: image/jpeg", f"Content-Length: {len(sample)}", *offer) + sample
    with connect(serve()) as client:
        for sent in (request + request, request):
            client.sendall(sent)
            assert answer(client)[0] == 200
        assert answer(client)[0] == 200


def test_head_is_answered_as_get_without_a_body(client: httpx.Client) -> None:
    for path in ("/livez", "/stitches", "/metrics", "/nowhere"):
        head, got = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (got.status_code, b"")
        assert head.headers["content-type"] == got.headers["content-type"]
        if path != "/metrics":
            assert head.headers["content-length"] == got.headers["content-length"]


def test_a_connection_that_has_ended_is_kept_by_nothing(serve: Serve, sample: bytes) -> None:
    running = serve()
    requests = [
        GET,
        post("/classify", "Content-Type: image/jpeg", f"Content-Length: {len(sample)}") + sample,
        post("/nowhere", "Content-Length: 500"),
        b"nonsense\r\n\r\n",
    ]
    gc.disable()
    try:
        for request in requests:
            with connect(running) as client:
                client.sendall(request)
                answer(client)
                (connection,) = running.server.server_state.connections
                kept = [weakref.ref(each) for each in (connection, getattr(connection, "cycle", None)) if each]
                del connection
            ends = time.monotonic() + 60
            while any(each() for each in kept):
                assert time.monotonic() < ends, request
    finally:
        gc.enable()


class Transport(asyncio.Transport):
    """A client that reads nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = asyncio.Event()

    def abort(self) -> None:
        self.aborted.set()


def test_a_client_that_does_not_take_its_answer_is_cut_off() -> None:
    async def scenario() -> None:
        config = uvicorn.Config(lambda: None, log_config=None)
        slow, stuck = Transport(), Transport()
        for transport in (slow, stuck):
            connection = Connection(config, ServerState(), {}, most=9, patience=0.01)
            connection.connection_made(transport)
            connection.pause_writing()
            if transport is slow:
                connection.resume_writing()
        await asyncio.wait_for(stuck.aborted.wait(), 60)
        assert not slow.aborted.is_set()

    asyncio.run(scenario())
