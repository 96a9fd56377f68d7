"""When a request reached this machine: the kernel knows, while a busy event loop reads it later."""

import socket
import struct
import sys
import time
from typing import Any

_COARSE = 6  # CLOCK_MONOTONIC_COARSE, in include/uapi/linux/time.h
ROUGH = time.clock_getres(_COARSE) if sys.platform == "linux" else 0.0
"""Seconds of a step of the kernel's clock: less than that says nothing."""
_LAST_DATA_RECEIVED = struct.Struct("52xI")  # Linux: struct tcp_info in include/uapi/linux/tcp.h, in milliseconds


def waited(connection: Any) -> float:
    """Seconds since the last bytes came on a TCP connection, a socket; 0 where that is not known."""
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_RECEIVED.size)
        seconds: float = _LAST_DATA_RECEIVED.unpack(info)[0] / 1e3
    except (OSError, AttributeError, struct.error):
        return 0.0
    return seconds if seconds > ROUGH else 0.0
