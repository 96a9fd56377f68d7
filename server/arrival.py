"""When a request reached this machine: the kernel knows, while a busy event loop reads it later."""

import asyncio
import socket
import struct
import sys
import time
from typing import Any, Self

_COARSE = 6  # CLOCK_MONOTONIC_COARSE, in include/uapi/linux/time.h
ROUGH = time.clock_getres(_COARSE) if sys.platform == "linux" else 0.0
"""Seconds of a step of the kernel's clock."""
_LAST_DATA_RECEIVED = struct.Struct("52xI")  # Linux: struct tcp_info in include/uapi/linux/tcp.h, in milliseconds


class Borrowed(socket.socket):
    """A transport's own socket, which stays the transport's to close.

    Of what uvloop gives for it every call makes a socket first, which takes as long again as to ask.
    """

    @classmethod
    def of(cls, transport: asyncio.BaseTransport) -> Self | None:
        """That of this transport, where it has one."""
        given = transport.get_extra_info("socket")
        return cls(fileno=given.fileno()) if given else None

    def __del__(self) -> None:
        self.detach()


def waited(connection: Any, *, alone: bool = False) -> float:
    """Seconds since the last bytes came on a TCP connection, a socket, give or take ROUGH; 0 where that is not known.

    Right on the average, since a wait of half a step is a step every other time; what a step says of somebody who is
    `alone`, whom nobody kept waiting, is just chance, and 0.
    """
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_RECEIVED.size)
        seconds: float = _LAST_DATA_RECEIVED.unpack(info)[0] / 1e3
    except (OSError, AttributeError, struct.error):
        return 0.0
    return 0.0 if alone and seconds <= ROUGH else seconds
