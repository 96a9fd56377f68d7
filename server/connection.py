"""Connections: uvicorn's httptools protocol, with a bound on all that a client can hold or have done.

Without, a client could say nothing, send half a header, header after header, a body of one-byte chunks or requests
without end, never read, or go on sending what was refused, and so keep connections, memory or the event loop.
"""

import asyncio
import json
import time
import weakref
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NoReturn, cast

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from server import bounds
from server.arrival import Borrowed, waited
from server.outlet import Outlet
from server.refused import Doorman, Refused

UNREAD = "unread"
"""In the scope's state: tells whether a part of the request's body has not come yet."""
CAME = "came"
"""In the scope's state: when the request's head reached this machine, by time.monotonic."""
LEFT = "left"
"""In the scope's state: a set of what is called when the client leaves."""


class Connection(HttpToolsProtocol):
    """One client's connection, among `most` of them.

    A request's head may take `patience` seconds to arrive, an answer as long to be taken. Where a request is answered
    before all of its body has come, the connection ends: what is still sent is not read, but thrown away for a moment.
    `on_refusal` is told the status of each answer that the connection gives in the app's place, but for what the
    `doorman` says to a POST.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        most: int,
        patience: float,
        on_refusal: Callable[[int], object] = lambda _: None,
        doorman: Doorman = lambda *_: None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._most, self._patience, self._on_refusal, self._doorman = most, patience, on_refusal, doorman
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._in_head = self._leaving = self._stopping = self._skipping = self._answered = False
        self._head = self._unparsed = self._chunks = self._body = self._bodies = self._discarded = 0
        self._fault: bounds.Refusal | None = None
        self._outlet = Outlet(self)
        self._left: set[Callable[[], object]] = set()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come; where there is no room for it, it is told so and sent away."""
        super().connection_made(transport)
        self._socket = Borrowed.of(transport)
        if len(self.connections) > self._most:
            self._say(503, f"{self._most} connections are open; come back later")
            self.transport.close()
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, or was sent away."""
        super().connection_lost(exc)
        self._outlet.flush()
        _stop(self._head_timer)
        _stop(self._write_timer)
        for tell in tuple(self._left):
            tell()

    def data_received(self, data: bytes) -> None:
        """Any number of bytes, of heads, bodies, or what is not read any more."""
        if self._leaving:
            self._discarded += len(data)
            if self._discarded > bounds.MOST_DISCARDED:
                self.transport.abort()
            return
        self._unset_keepalive_if_required()
        self._answered = False
        while data:
            data = self._parse(data)
        if not self._leaving and (self._in_head or not self._answering()):
            self._expect_head()

    def _parse(self, data: bytes) -> bytes:
        """What is left to parse."""
        self._bodies = 0
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._without_upgrade() + data[upgrade.args[0] :]
        except httptools.HttpParserCallbackError:
            self._refuse(*(self._fault or bounds.BAD_URL))
            return b""
        except httptools.HttpParserError as error:
            self._refuse(400, f"the request cannot be read: {error}")
            return b""
        self._unparsed = self._unparsed + len(data) - self._bodies if self._in_head else 0
        if self._unparsed > bounds.MOST_HEAD:
            self._refuse(*bounds.LONG_HEAD)
        return b""

    def _without_upgrade(self) -> bytes:
        """The head at hand, without its offer to speak another protocol, to be parsed anew.

        The parser takes every such offer for accepted, and with it a body for another protocol's bytes. Java's client,
        for one, offers HTTP/2 with each first request.
        """
        method = self.parser.get_method()
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        lines = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([method + b" " + self.url + b" HTTP/1.1", *lines, b"", b""])

    def on_message_begin(self) -> None:
        """The parser has met a request."""
        super().on_message_begin()
        self._unset_keepalive_if_required()  # it may have come with one that was refused
        self._in_head = True
        self._head = self._chunks = self._body = 0

    def on_url(self, url: bytes) -> None:
        """A part of its URL."""
        super().on_url(url)
        self._head += len(url)
        if self._head > bounds.MOST_URL:
            self._fail(bounds.LONG_URL)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or a trailer."""
        super().on_header(name, value)
        self._head += len(name) + len(value)
        if self._head > bounds.MOST_HEAD or len(self.headers) > bounds.MOST_HEADERS:
            self._fail(bounds.LONG_HEAD)

    def on_headers_complete(self) -> None:
        """Its body begins."""
        self._in_head = False
        _stop(self._head_timer)
        self._head_timer = None
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                self._fail(bounds.CONNECT)
            return
        waiting = waited(self._socket, alone=not self.server_state.tasks)
        if self._turned_away(waiting):
            return
        super().on_headers_complete()
        cycle = self.cycle
        cycle.transport = cast(asyncio.Transport, self._outlet)
        cycle.keep_alive = cycle.keep_alive and not self._stopping
        state = cycle.scope["state"]
        seen = weakref.proxy(cycle)  # which holds this state: together they would stay until a collection
        state[UNREAD], state[LEFT] = lambda: seen.more_body, self._left
        state[CAME] = time.monotonic() - waiting
        if len(self.pipeline) > bounds.MOST_PIPELINED:
            self._fail(bounds.PIPELINED)

    def _turned_away(self, waiting: float) -> bool:
        """Whether the doorman refuses the request, whose body is then skipped.

        It is asked where an answer can go at once, and about one of all that have come together: others wait in turn.
        """
        parser = self.parser
        if parser.get_method() != b"POST" or parser.get_http_version() != "1.1" or not parser.should_keep_alive():
            return False
        if self._answering() or self._answered or self._stopping or self.expect_100_continue or self.flow.write_paused:
            return False
        length = next((value for name, value in self.headers if name == b"content-length"), b"")
        if not length.isdigit() or int(length) > bounds.MOST_SKIPPED:
            return False
        refused = self._doorman(self.url, self.headers, waiting)
        self._skipping = self._answered = refused is not None
        if refused:
            self._outlet.hold(refused.rendered(self.server_state.default_headers), refused.held)
        return self._skipping

    def on_chunk_header(self) -> None:
        """A chunk of the body begins."""
        self._chunks += 1
        if self._chunks > bounds.SPARE_CHUNKS + self._body // bounds.BYTES_PER_CHUNK:
            self._fail(bounds.SMALL_CHUNKS)

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body += len(body)
        self._bodies += len(body)
        if not self._skipping:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has come."""
        if self._skipping:
            self._skipping = False
            self.on_response_complete()  # as one to be followed by another on the same connection
        elif not self.parser.should_upgrade():
            super().on_message_complete()

    def shutdown(self) -> None:
        """The server stops: what was asked is answered, and so is what is on its way, since a reset may meet it."""
        self._outlet.flush()
        if self._answering():
            super().shutdown()
        elif not self._leaving and not self._stopping:
            self._stopping = True
            _stop(self._head_timer)
            self._head_timer = self.loop.call_later(bounds.GRACE, self._on_slow_head)

    def pause_writing(self) -> None:
        """The client does not take what it asked for."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self._patience, self.transport.abort)

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        _stop(self._write_timer)

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._leaving or self.transport.is_closing()

    def leave(self) -> None:
        """End the connection after an answer."""
        self._outlet.flush()
        if self.cycle.more_body:
            self._linger()
        else:
            self.transport.close()

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._patience, self._on_slow_head)

    def _on_slow_head(self) -> None:
        self._head_timer = None
        if self._in_head:
            self._refuse(*bounds.SLOW_HEAD)
        else:
            self._outlet.flush()
            self.transport.close()

    def _fail(self, refusal: bounds.Refusal) -> NoReturn:
        # The parser wraps what its callbacks raise, and _parse refuses.
        self._fault = refusal
        raise ValueError(refusal[1])

    def _refuse(self, status: int, detail: str) -> None:
        """Answer in the app's place, to which the client will be gone, and end the connection."""
        if self._answering() and self.cycle.response_started:
            self.transport.abort()
            return
        self.logger.info("Request refused: %s", detail)
        self._say(status, detail)
        self._linger()

    def _say(self, status: int, detail: str) -> None:
        self._on_refusal(status)
        title = HTTPStatus(status).phrase
        body = json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail}).encode()
        headers = [(b"connection", b"close")]
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers.append((b"retry-after", b"1"))
        self._outlet.write(Refused(status, headers, body).rendered(self.server_state.default_headers))
        self._outlet.flush()

    def _linger(self) -> None:
        """End the connection for the client now and for us soon: a reset under its hands could cost it the answer."""
        if self.is_closing():
            return
        self._leaving = True
        self.pipeline.clear()
        if self.transport.can_write_eof():  # not within TLS, where the answer has its length alone
            self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(bounds.LINGER, self.transport.abort)


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer:
        timer.cancel()
