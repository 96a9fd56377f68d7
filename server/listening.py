"""Sockets to listen on: bound before the model is loaded, so that a port that is taken is known at once."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

_NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


@contextmanager
def bound(host: str, port: int, option: str = "--port") -> Iterator[list[socket.socket]]:
    """A socket for every address of `host`, bound but not listening yet, all on one port; 0 finds a free one.

    They are closed when the block is left. Raises ValueError, naming host, port and `option`, where one cannot be had.
    """
    with ExitStack() as closing:
        yield [closing.enter_context(each) for each in _all(host, port, option)]


def listen(sockets: list[socket.socket]) -> None:
    """Let clients come. Raises ValueError where another program has begun to listen there since."""
    for each in sockets:
        try:
            each.listen()
        except OSError as error:
            host, port = each.getsockname()[:2]
            raise _refusal(host, port, error) from error


def waiting(listening: socket.socket) -> Iterator[socket.socket]:
    """The clients that have come, but that nobody has let in yet; of a socket that does not block."""
    with suppress(OSError):  # nobody is left, or no more files may be opened
        while True:
            yield listening.accept()[0]


def addresses(sockets: list[socket.socket], *, tls: bool = False) -> list[str]:
    """Where a client finds them: `http://127.0.0.1:8000`."""
    scheme = "https" if tls else "http"
    names = (each.getsockname()[:2] for each in sockets)
    return [f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}" for host, port in names]


def _all(host: str, port: int, option: str) -> Iterator[socket.socket]:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise _refusal(host, port, error, option) from error
    first = missing = None
    for family, _, _, _, address in found:
        chosen = first.getsockname()[1] if first else port
        try:
            opened = _bound(family, (address[0], chosen, *address[2:]))
        except OSError as error:
            missing = error
            if error.errno not in _NOT_HERE:
                raise _refusal(host, port, error, option) from error
        else:
            first = first or opened
            yield opened
    if missing and not first:  # else: a name may have an address of a kind that the machine lacks, as ::1
        raise _refusal(host, port, missing, option)


def _bound(family: int, address: tuple[Any, ...]) -> socket.socket:
    # Of TCP by name: to others asyncio does not give TCP_NODELAY, and an answer in two writes may take 40 ms longer.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier run may linger
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # :: leaves 0.0.0.0 to a socket of its own
        opened.bind(address)
    except OSError:
        opened.close()
        raise
    return opened


def _refusal(host: str, port: int, error: OSError, option: str = "--port") -> ValueError:
    reason = error.strerror or str(error)
    remedy = (
        f"stop what listens there, or give another {option} (0 finds a free one)"
        if error.errno == errno.EADDRINUSE
        else f"give another --host or {option}"
    )
    return ValueError(f"cannot listen on host {host!r}, port {port}: {reason}; {remedy}")
