"""A front end: a process that speaks HTTP and decodes images for the engine's process, and knows no torch and no route.

`python -m server.frontend WHAT`, started by frontends.py, which hands it its sockets. What it is asked it asks on.
"""

import asyncio
import gc
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from typing import Any

from lookup_tables.records import Preprocessing
from server import logs
from server.channel import OPENED, PART, READING, STARTED, TO_COME, Channel, Kind, joined, paired, parted
from server.connection import CAME, LEFT, UNREAD
from server.errors import Unavailable
from server.exchange import Exchange, is_image
from server.images import Limits
from server.leaving import Leaving, configuration
from server.pictures import Pictures
from server.refused import PROBLEM
from server.shared import Shared

log = logging.getLogger(__name__)

AHEAD = 4
"""Parts of a body that may be on their way to the engine's process before it wants more."""
ORPHANED = 1.0  # seconds for which a front end without an engine says so, before it goes
NO_ENGINE = "the engine's process has ended; the server is to be restarted"
STOPPED = "the server stopped before it could answer"
CUT = "the answer ended before its end"
CLOSE = b"connection", b"close"


@dataclass(frozen=True)
class Given:
    """What a front end is told: open files by their numbers, and settings of the server."""

    listening: list[int]
    channel: int
    memory: int
    size: int
    places: int
    preprocessing: dict[str, Any]
    limits: dict[str, int]
    exact: bool
    threads: int
    connections: int
    patience: float
    drain: float
    proxies: list[str]
    cert: str | None
    key: str | None
    log_format: logs.Form

    def said(self) -> str:
        """As the process's argument."""
        return json.dumps(asdict(self))


class Relay:
    """The application of a front end: the engine's process answers. `on_stop` is called when that says to stop."""

    def __init__(self, given: Given, memory: Shared, on_stop: Callable[[], object]) -> None:
        self.lost = False
        self.admitting = asyncio.Event()
        """Set when clients may come."""
        self.channel = Channel(self._take, self._on_lost)
        self._on_stop = on_stop
        self._limits = Limits(**given.limits)
        self._numbers = count(1)
        self._open: dict[int, Exchange] = {}
        self._pictures = Pictures(
            memory,
            Preprocessing(**given.preprocessing),
            self._limits,
            exact=given.exact,
            threads=given.threads,
            tell=partial(self.channel.send, Kind.READ),
        )

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """One request."""
        headers, most = dict(scope["headers"]), self._limits.max_bytes
        # Whoever asks before sending a body is told to go on when the application wants it.
        asks = b"expect" in headers
        number = next(self._numbers)
        exchange = Exchange(0 if asks else AHEAD, most, held=not asks and is_image(headers, most))
        started = ended = False
        if self.lost:
            await _refuse(send, NO_ENGINE)
            return
        self._open[number] = exchange
        unread = scope["state"].get(UNREAD, bool)
        if exchange.held and not unread():
            stop = await self._send_whole(number, exchange, scope, receive)
        else:
            self.channel.send(Kind.OPEN, number, OPENED.pack(scope["state"][CAME], TO_COME, asks), _head(scope))
            stop = asyncio.create_task(self._bring(number, exchange, receive)).cancel
        try:
            while not ended:
                message = await exchange.answer.get()
                if message is None:
                    break
                if not started and unread() and CLOSE not in message["headers"]:
                    message["headers"].append(CLOSE)
                await send(message)
                started = True
                ended = message["type"] == "http.response.body" and not message["more_body"]
        except asyncio.CancelledError:  # the time to finish is over
            if not started:
                await _refuse(send, STOPPED)
                return
            raise
        finally:
            stop()
            del self._open[number]
            if not ended:
                self.channel.send(Kind.GONE, number)
        if not (ended or exchange.left):
            if started:
                raise ConnectionError(NO_ENGINE if self.lost else CUT)
            await _refuse(send, NO_ENGINE if self.lost else STOPPED)

    def count(self, status: int) -> None:
        """Tell of a connection that was answered here."""
        self.channel.send(Kind.TOLD, status)

    async def _bring(self, number: int, exchange: Exchange, receive: Any) -> None:
        """Send the request's body on, as far as it is wanted, and that its client has left."""
        more = True
        while True:
            if more and not exchange.held:
                await exchange.room.acquire()
            message = await receive()
            if message["type"] != "http.request":
                break
            body, more = message.get("body", b""), message.get("more_body", False)
            exchange.keep(body)
            exchange.complete = not more
            if exchange.held:
                self.channel.send(Kind.HELD, number, PART.pack(more, len(body)))
            else:
                self.channel.send(Kind.BODY, number, b"\1" if more else b"\0", body)
        self._leave(number, exchange)

    async def _send_whole(
        self, number: int, exchange: Exchange, scope: dict[str, Any], receive: Any
    ) -> Callable[[], object]:
        """Send on a request whose body has come, and is held -> what is to be called when it is answered."""
        message = await receive()
        if message["type"] != "http.request":  # its client has left
            exchange.left = True
            exchange.answer.put_nowait(None)
            return bool
        body = message["body"]
        exchange.keep(body)
        exchange.complete = True
        self.channel.send(Kind.OPEN, number, OPENED.pack(scope["state"][CAME], len(body), False), _head(scope))
        told: set[Callable[[], object]] = scope["state"][LEFT]
        leave = partial(self._leave, number, exchange)
        told.add(leave)
        return partial(told.discard, leave)

    def _leave(self, number: int, exchange: Exchange) -> None:
        exchange.left = True
        self.channel.send(Kind.GONE, number)

    def _take(self, kind: Kind, number: int, payload: bytes) -> None:
        exchange = self._open.get(number)
        if kind is Kind.DECODE:
            self._decode(number, payload)
        elif kind is Kind.DROP:
            self._pictures.drop(number)
        elif kind is Kind.FREE:
            self._pictures.free(number)
        elif kind is Kind.ADMIT:
            self.admitting.set()
        elif kind is Kind.STOP:
            self._on_stop()
        elif exchange:  # else its client has left
            self._go_on(kind, number, payload, exchange)

    def _go_on(self, kind: Kind, number: int, payload: bytes, exchange: Exchange) -> None:
        if kind is Kind.MORE:
            exchange.room.release()
        elif kind is Kind.BRING:
            exchange.held = False
            self.channel.send(Kind.BODY, number, b"\0" if exchange.complete else b"\1", *exchange.body)
        elif kind is Kind.START:
            (status,) = STARTED.unpack_from(payload)
            headers = paired(parted(payload[STARTED.size :]))
            exchange.answer.put_nowait({"type": "http.response.start", "status": status, "headers": headers})
        elif kind is Kind.DATA:
            more = payload[0] > 0
            exchange.answer.put_nowait({"type": "http.response.body", "body": payload[1:], "more_body": more})
        elif kind is Kind.CUT:
            exchange.answer.put_nowait(None)

    def _on_lost(self) -> None:
        self.lost = True
        for exchange in self._open.values():
            exchange.answer.put_nowait(None)
        asyncio.get_running_loop().call_later(ORPHANED, self._on_stop)

    def _decode(self, number: int, payload: bytes) -> None:
        due, request = READING.unpack_from(payload)
        if request and request not in self._open:
            return  # its client has left, which the other side is told
        parts = self._open[request].body if request else [payload[READING.size :]]
        body = b"".join(parts)
        parts.clear()
        self._pictures.begin(number, body, due)


def _head(scope: dict[str, Any]) -> bytes:
    """A request's head. None of its parts can hold the end of a line, as a path may that is not raw."""
    ends = [str(part).encode() for end in ("client", "server") for part in scope[end] or ("", "")]
    told = [scope[name].encode() for name in ("method", "scheme", "http_version")]
    headers = (part for header in scope["headers"] for part in header)
    return joined([*told, *ends, scope["raw_path"], scope["query_string"], *headers])


async def _refuse(send: Any, detail: str) -> None:
    body = json.dumps(Unavailable(detail).problem()).encode()
    headers = [
        (b"content-type", PROBLEM.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"retry-after", b"1"),
        CLOSE,
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def main() -> None:
    """The process."""
    for number in (signal.SIGTERM, signal.SIGINT):  # the engine's process is told, and says when to go
        signal.signal(number, signal.SIG_IGN)
    given = Given(**json.loads(sys.argv[1]))
    logs.configure(given.log_format)

    def stop() -> None:
        server.should_exit = True
        relay.admitting.set()  # or it would not come to its end

    relay = Relay(given, Shared(given.memory, given.size, given.places), stop)
    how = configuration(
        relay,
        most=given.connections,
        patience=given.patience,
        on_refusal=relay.count,
        drain=given.drain,
        proxies=given.proxies,
        cert=given.cert,
        key=given.key,
        lifespan=False,
    )
    server = Leaving(how)

    async def serve() -> None:
        channel = socket.socket(fileno=given.channel)
        await asyncio.get_running_loop().create_unix_connection(lambda: relay.channel, sock=channel)
        await relay.admitting.wait()
        await server.serve([socket.socket(fileno=number) for number in given.listening])

    gc.freeze()
    with asyncio.Runner(loop_factory=how.get_loop_factory()) as runner:
        runner.run(serve())
        logging.shutdown()
        os._exit(1 if relay.lost else 0)  # a thread may wait for a place that nobody frees


if __name__ == "__main__":
    main()
