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
        self._waiting = self._held = b""
        self._timer: asyncio.TimerHandle | None = None

    def hold(self, data: bytes, seconds: float) -> None:
        """Send it so many seconds from now, or as soon as anything else is to be sent."""
        connection = self._connection()
        if not seconds:
            self.write(data)
        elif connection:
            self.release()
            self.flush()
            self._held, self._timer = data, connection.loop.call_later(seconds, self.release)

    def release(self) -> None:
        """Send what is held back, where the client still listens."""
        held, connection = self._held, self._connection()
        self._held = b""
        if self._timer:
            self._timer.cancel()
        if held and connection and not connection.is_closing():
            connection.transport.write(held)

    def write(self, data: bytes) -> None:
        """Send to the client, where it still listens."""
        self.release()
        connection = self._connection()
        if self._waiting:
            self._send(self._waiting, data)
        elif data and connection:
            self._waiting = data
            connection.loop.call_soon(self.flush)

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
        connection = self._connection()
        if connection and not connection.is_closing():
            connection.transport.writelines(data)
