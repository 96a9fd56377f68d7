"""One front end, seen from the engine's process: the application answers its requests, and it decodes for them."""

import asyncio
import socket
import time
from collections import deque
from collections.abc import Iterable
from itertools import count
from typing import Any
from urllib.parse import unquote
from weakref import finalize

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json
from starlette.types import ASGIApp, Message, Scope

from server import errors
from server.channel import (
    LATE,
    OPENED,
    PART,
    READ,
    READING,
    STARTED,
    TO_COME,
    WRONG,
    Channel,
    Kind,
    joined,
    paired,
    parted,
)
from server.connection import CAME, LEFT
from server.engine import Image
from server.errors import InternalError, ServeError, Unavailable
from server.frontend import AHEAD
from server.incoming import Incoming
from server.pixels import from_pixels
from server.reading import elsewhere
from server.refused import Doorman, Header, Refused
from server.service import Service
from server.shared import Shared
from server.stages import Stages

LENT = 32
"""Images that may stay in a front end's memory until they have been classified."""
LOST = "the front end that this request came by has ended"


class Attached:
    """A front end on a socket, with memory that it writes pictures to."""

    def __init__(
        self,
        app: ASGIApp,
        service: Service,
        memory: Shared,
        connected: socket.socket,
        doorman: Doorman = lambda *_: None,
    ) -> None:
        self._app, self._service, self.memory, self.socket, self._doorman = app, service, memory, connected, doorman
        self.channel = Channel(self.take, self._on_lost)
        self.open: dict[int, Incoming] = {}
        self.gone = asyncio.Event()
        """Set when it has ended."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = count(1)
        self._reading: dict[int, asyncio.Future[bytes]] = {}
        self._lent = 0
        self._returned: deque[int] = deque()

    def admit(self) -> None:
        """Tell it to let clients in."""
        self.channel.send(Kind.ADMIT, 0)

    def stop(self) -> None:
        """Tell it to let nobody in and to end when all are answered."""
        self.channel.send(Kind.STOP, 0)

    async def read(self, body: bytes, number: int, stages: Stages) -> Image:
        """What an image, a file's bytes, becomes for the engine; `number`: of the request whose body it is, or 0."""
        if self.channel.closed:
            raise Unavailable(LOST)
        while self._returned:
            self._lent -= 1
            self.channel.send(Kind.FREE, self._returned.popleft())
        reading = next(self._numbers)
        found = self._reading[reading] = asyncio.get_running_loop().create_future()
        self.channel.send(Kind.DECODE, reading, READING.pack(stages.deadline, number), b"" if number else body)
        try:
            said = await found
        except asyncio.CancelledError:
            if found.cancelled():
                self.channel.send(Kind.DROP, reading)
            elif not found.exception():  # it came in the same moment
                self._drop(found.result())
            raise
        finally:
            del self._reading[reading]
        began, place = READ.unpack_from(said)
        try:
            stages.end("decode_wait", began)
            if place == WRONG:
                raise _error(*from_json(said[READ.size :]))
            if place == LATE:  # its time was over before there was a place
                stages.end("decode_wait")
                raise Unavailable("the front end has no room for a picture; come back later")
            stages.end("decode")
        except ServeError:
            self._drop(said)
            raise
        return from_pixels(self._taken(place), self._service.table.family.preprocessing)

    def _taken(self, place: int) -> NDArray[np.uint8]:
        """The image in a place, which is free again once nobody has it; at once, for a copy, where many are lent."""
        image = self.memory.look(place)
        if self._lent == LENT:
            image = image.copy()
            self.channel.send(Kind.FREE, place)
        else:
            self._lent += 1
            finalize(image, self._returned.append, place)
        return image

    def _drop(self, said: bytes) -> None:
        _, place = READ.unpack_from(said)
        if place >= 0:
            self.channel.send(Kind.FREE, place)

    def take(self, kind: Kind, number: int, payload: bytes) -> None:
        """A frame that came."""
        if kind is Kind.OPEN:
            self._begin(number, payload)
        elif kind is Kind.BODY and number in self.open:
            self.open[number].body(payload[0] > 0, payload[1:])
        elif kind is Kind.HELD and number in self.open:
            self.open[number].hold(*PART.unpack(payload))
        elif kind is Kind.GONE and number in self.open:
            self.open[number].leave()
        elif kind is Kind.READ:
            found = self._reading.get(number)
            if found and not found.done():
                found.set_result(payload)
            else:
                self._drop(payload)
        elif kind is Kind.TOLD:
            self._service.metrics.count_refusal(number)

    def _on_lost(self) -> None:
        for incoming in self.open.values():
            incoming.leave()
        for found in self._reading.values():
            if not found.done():
                found.set_exception(Unavailable(LOST))
        self.gone.set()

    def _begin(self, number: int, payload: bytes) -> None:
        """One request, whose head has come: it is refused at once, or answered by a task of its own."""
        came, held, asks = OPENED.unpack_from(payload)
        scope = _scope(payload[OPENED.size :])
        if scope["method"] == "POST" and not asks:
            url = b"?".join([scope["raw_path"], scope["query_string"]])
            if refused := self._doorman(url, scope["headers"], time.monotonic() - came):
                if refused.held:
                    asyncio.get_running_loop().call_later(refused.held, self._refuse, number, refused)
                else:
                    self._refuse(number, refused)
                return
        incoming = self.open[number] = Incoming(self, number, AHEAD if asks else 0)
        if held != TO_COME:
            incoming.hold(False, held)
        scope["state"] = {CAME: came, LEFT: incoming.told}
        task = asyncio.create_task(self._answer(number, incoming, scope))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, number: int, incoming: Incoming, scope: Scope) -> None:
        """One request, to the end of its answer."""
        elsewhere.set(incoming)
        ended = False

        async def send(message: Message) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                self._start(number, message["status"], message["headers"])
            else:
                ended = not message.get("more_body", False)
                self._data(number, not ended, message.get("body", b""))
            await self.channel.drain()

        try:
            await self._app(scope, incoming.receive, send)
        finally:
            del self.open[number]
            if not ended:
                self.channel.send(Kind.CUT, number)

    def _refuse(self, number: int, refused: Refused) -> None:
        self._start(number, refused.status, refused.whole_headers)
        self._data(number, False, refused.body)

    def _start(self, number: int, status: int, headers: Iterable[Header]) -> None:
        head = joined(part for header in headers for part in header)
        self.channel.send(Kind.START, number, STARTED.pack(status), head)

    def _data(self, number: int, more: bool, body: bytes) -> None:
        self.channel.send(Kind.DATA, number, b"\1" if more else b"\0", body)


def _scope(head: bytes) -> Scope:
    method, scheme, version, host, port, our_host, our_port, raw_path, query, *headers = parted(head)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": version.decode(),
        "method": method.decode(),
        "scheme": scheme.decode(),
        "path": unquote(raw_path.decode("ascii")),
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": paired(headers),
        "client": _end(host, port),
        "server": _end(our_host, our_port),
    }


def _end(host: bytes, port: bytes) -> tuple[str, int | None] | None:
    return (host.decode(), int(port) if port.isdigit() else None) if host else None


def _error(name: str, detail: str, extra: dict[str, Any]) -> ServeError:
    """What a front end found wrong with an image; `InternalError` for what no image can have."""
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, ServeError):
        return kind(detail, **extra)
    return InternalError(detail)
