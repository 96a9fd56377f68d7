"""What a response sees of its connection's transport: where it writes."""

import asyncio
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.connection import Connection


class Outlet:
    """Of two writes in one turn of the event loop the first waits for the second: head and body are one system call.

    What nothing follows is sent when the turn is over.
    """

    def __init__(self, connection: "Connection") -> None:
        self._connection = weakref.ref(connection)  # a circle of references would keep what has ended
        self._waiting = b""
        self._flushing: asyncio.Handle | None = None

    def write(self, data: bytes) -> None:
        """Send to the client, where it still listens."""
        connection = self._connection()
        if self._waiting:
            self._send(self._waiting, data)
        elif data and connection:
            self._waiting, self._flushing = data, connection.loop.call_soon(self.flush)

    def hold(self, data: bytes, seconds: float) -> None:
        """Send it so many seconds from now, or with what is to be sent before that."""
        connection = self._connection()
        self.flush()
        if seconds and connection:
            self._waiting, self._flushing = data, connection.loop.call_later(seconds, self.flush)
        else:
            self.write(data)

    def flush(self) -> None:
        """Send what still waits."""
        if self._waiting:
            self._send(self._waiting)

    def close(self) -> None:
        """The answer is complete, and the connection ends with it."""
        if connection := self._connection():
            connection.leave()

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        connection = self._connection()
        return connection is None or bool(connection.is_closing())

    def _send(self, *data: bytes) -> None:
        self._waiting = b""
        if self._flushing:  # which may be for later
            self._flushing.cancel()
        connection = self._connection()
        if connection and not connection.is_closing():
            connection.transport.writelines(data)
