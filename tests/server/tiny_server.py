"""A tiny HTTP server in the caller's event loop, that answers as it is told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from yarl import URL


@dataclass
class Received:
    """One request: its first line, its headers by lower-case name, its body."""

    line: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


Answer = Callable[[Received], Awaitable[tuple[int, bytes] | None]]
"""The status and the body of the reply; None hangs up."""


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[URL]:
    """The server's address, while it listens."""

    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while reply := await answer(await receive(reader)):
                head = f"HTTP/1.1 {reply[0]} X\r\nContent-Type: text/plain\r\nContent-Length: {len(reply[1])}\r\n\r\n"
                writer.write(head.encode() + reply[1])

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(serve(reader, writer))
        connections.add(connection)
        connection.add_done_callback(lambda _: writer.close())

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield URL(f"http://{host}:{port}")
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def receive(reader: asyncio.StreamReader) -> Received:
    """The next request; IncompleteReadError when there is none."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    return Received(head[0], headers, await reader.readexactly(int(headers.get("content-length", 0))))
