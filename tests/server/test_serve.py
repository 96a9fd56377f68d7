"""How the server stops: nobody who has reached it is sent away without an answer."""

import asyncio
import socket
from functools import partial
from typing import Any, cast

import pytest
import uvicorn
from conftest import Running
from uvicorn.server import ServerState

from server.connection import Connection
from server.listening import bound, listen
from server.running import Server

GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


def config(loop: Any = "auto") -> uvicorn.Config:
    protocol = partial(Connection, most=9, patience=60)
    return uvicorn.Config(hello, http=cast(Any, protocol), lifespan="off", ws="none", log_config=None, loop=loop)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_who_has_reached_the_socket_is_answered(running: Running, loop: str) -> None:
    async def scenario() -> list[bytes]:
        with bound("127.0.0.1", 0) as sockets:
            listen(sockets)
            server = Server(config(), running.service)
            server.config.load()
            server.lifespan = server.config.lifespan_class(server.config)
            await server.startup(sockets)
            # The loop has no turn in which to let them in.
            clients = [socket.create_connection(sockets[0].getsockname(), timeout=60) for _ in range(3)]
            for client in clients:
                client.sendall(GET)
            await server.shutdown(sockets)
        answers = [client.makefile("rb").read() for client in clients]
        for client in clients:
            client.close()
        return answers

    with asyncio.Runner(loop_factory=config(loop).get_loop_factory()) as runner:
        assert [answer[:13] for answer in runner.run(scenario())] == [b"HTTP/1.1 200 "] * 3


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.closed = b"", asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def close(self) -> None:
        self.closed.set()


@pytest.mark.parametrize("before", [b"", GET, GET[:9]])
def test_a_request_that_is_on_its_way_when_the_server_stops_is_answered_the_last(before: bytes) -> None:
    async def scenario() -> None:
        transport = Transport()
        loaded = config()
        loaded.load()
        connection = Connection(loaded, ServerState(), {}, most=9, patience=60)
        connection.connection_made(transport)
        if before:
            connection.data_received(before)
        await asyncio.gather(*connection.tasks)
        connection.shutdown()
        assert not transport.is_closing()
        connection.data_received(GET[9:] if before == GET[:9] else GET)
        await asyncio.wait_for(transport.closed.wait(), 60)
        answers = transport.written.split(b"HTTP/1.1 200 ")[1:]
        assert len(answers) == (2 if before == GET else 1)
        assert [b"connection: close" in answer for answer in answers] == [False] * (len(answers) - 1) + [True]

    asyncio.run(scenario())


def test_who_asks_nothing_is_not_waited_for() -> None:
    async def scenario() -> None:
        transport = Transport()
        connection = Connection(config(), ServerState(), {}, most=9, patience=60)
        connection.connection_made(transport)
        connection.shutdown()
        await asyncio.wait_for(transport.closed.wait(), 30)

    asyncio.run(scenario())
