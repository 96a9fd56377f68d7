"""What a response sees of its connection's transport: its head waits for what follows, so that both go out as one."""

import asyncio
import weakref
from typing import Protocol

MOST_JOINED = 64 * 1024  # bytes: more is not copied to be sent with a head
_HEAD = b"HTTP/1.1 "


class Connected(Protocol):
    """A connection, as far as its responses need it."""

    loop: asyncio.AbstractEventLoop

    def write(self, data: bytes) -> None:
        """Send to the client, where it still listens."""

    def leave(self) -> None:
        """End the connection after an answer."""

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""


class Outlet:
    """Takes the place of a transport in uvicorn's hands, which writes head and body apart: a system call for each."""

    def __init__(self, connection: Connected) -> None:
        self._connection = weakref.proxy(connection)  # a circle of references would keep what has ended
        self._head = b""

    def write(self, data: bytes) -> None:
        """Send this; a head alone at the end of this turn of the event loop at the latest."""
        if data.startswith(_HEAD):
            self.flush()
            self._head = data
            self._connection.loop.call_soon(self.flush)
        elif self._head and len(data) <= MOST_JOINED:
            head, self._head = self._head, b""
            self._connection.write(head + data)
        else:
            self.flush()
            self._connection.write(data)

    def close(self) -> None:
        """End the connection."""
        self.flush()
        self._connection.leave()

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return bool(self._connection.is_closing())

    def flush(self) -> None:
        """Send a head that waits."""
        if self._head:
            head, self._head = self._head, b""
            self._connection.write(head)
