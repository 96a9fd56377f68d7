"""When bytes came, as the kernel tells."""

import asyncio
import os
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from conftest import Running, run, settings

from server.arrival import ROUGH, Borrowed, waited
from server.service import Service

LONG = 0.1  # seconds

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when bytes came")


@linux
def test_bytes_that_wait_grow_old_until_others_come() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as client,
    ):
        sending = time.monotonic()
        client.sendall(b"a request")
        sent = time.monotonic()
        connection, _ = listening.accept()
        with connection:
            while time.monotonic() - sent < LONG:
                pass
            least, age, most = time.monotonic() - sent, waited(connection, alone=True), time.monotonic() - sending
            assert least - 2 * ROUGH <= age <= most + 2 * ROUGH
            assert connection.recv(100) == b"a request"
            client.sendall(b"another one")
            connection.recv(100)
            assert waited(connection) < age


class Told:
    """A connection of which the kernel tells so many milliseconds."""

    def __init__(self, milliseconds: int) -> None:
        self.milliseconds = milliseconds

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO)
        return self.milliseconds.to_bytes(4, sys.byteorder).rjust(size, b"\0")


@linux
def test_of_somebody_who_is_alone_one_step_of_the_clock_is_chance() -> None:
    step = int(ROUGH * 1e3)
    assert waited(Told(step)) == step / 1e3
    assert waited(Told(step), alone=True) == 0.0
    assert waited(Told(step + 1), alone=True) == waited(Told(step + 1)) == (step + 1) / 1e3


def test_what_is_no_tcp_connection_says_nothing() -> None:
    one, other = socket.socketpair()
    with one, other:
        other.sendall(b"a request")
        assert waited(one) == 0.0
    assert waited(one) == 0.0, "nor does one that is closed"
    assert waited(None) == 0.0


def test_a_borrowed_socket_stays_open_when_it_is_let_go() -> None:
    async def borrow(one: socket.socket) -> None:
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=one)
        borrowed = Borrowed.of(transport)
        assert borrowed
        assert borrowed.fileno() == one.fileno()
        del borrowed
        os.fstat(one.fileno())  # raises where it is closed
        transport.close()

    one, other = socket.socketpair()
    with one, other:
        asyncio.run(borrow(one))


class Holding:
    """The real clock, which holds whoever asks it, the event loop, until it is let go."""

    def __init__(self) -> None:
        self.go, self.asked = Event(), Event()
        self.go.set()

    def __call__(self) -> float:
        self.asked.set()
        assert self.go.wait(60)
        return time.monotonic()


@linux
def test_a_request_counts_from_when_it_came_though_nobody_read_it(running: Running, cache: Path, sample: bytes) -> None:
    clock = Holding()
    service = Service(settings(cache), running.service.engine, running.service.table, clock)
    for home in run(service):
        with home.client() as first, home.client() as second, ThreadPoolExecutor(2) as pool:
            assert second.get("/livez").status_code == 200, "connected"
            clock.asked.clear()
            clock.go.clear()
            pool.submit(first.post, "/classify", content=sample)
            assert clock.asked.wait(60), "the loop is held"
            waiting = pool.submit(second.post, "/classify", content=sample)
            port = int(home.url.rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port)) as third:  # not even let in
                third.sendall(b"POST /classify?deadline_ms=250 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nlate")
                begun = time.monotonic()
                while time.monotonic() - begun < 3 * LONG:
                    pass
                clock.go.set()
                assert third.recv(1000).startswith(b"HTTP/1.1 504 ")
            assert waiting.result().json()["timing_ms"]["total"] >= LONG * 1e3
