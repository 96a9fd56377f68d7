"""One front end, seen from the engine's process: the application answers its requests, and it decodes for them."""

import asyncio
import socket
import time
from collections import deque
from collections.abc import Awaitable, Coroutine, Iterable
from itertools import count
from typing import Any
from weakref import finalize

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Scope

from server import errors
from server.channel import LATE, PART, READ, READING, STARTED, WHOLE, WRONG, Channel, Kind, joined, paired, parted
from server.connection import CAME, LEFT
from server.engine import Image
from server.errors import InternalError, ServeError, Unavailable
from server.frontend import AHEAD
from server.gate import CLASSIFY
from server.incoming import Incoming
from server.pixels import from_pixels
from server.reading import elsewhere
from server.refused import Doorman, Header
from server.service import Service
from server.shared import Shared
from server.shortcut import Shortcut
from server.stages import Stages

_PATH = f"{CLASSIFY.path}?".encode()
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
        *,
        doorman: Doorman = lambda *_: None,
        shortcut: Shortcut | None = None,
    ) -> None:
        self._app, self._service, self.memory, self.socket = app, service, memory, connected
        self._doorman, self._shortcut = doorman, shortcut
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
        if kind is Kind.WHOLE and self._shortcut:
            self._classify(number, payload, self._shortcut)
        elif kind is Kind.OPEN:
            self._begin(number, from_json(payload))
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

    def _begin(self, number: int, head: dict[str, Any]) -> None:
        """One request, whose head has come: it is refused at once, or answered by a task of its own."""
        scope = _scope(head)
        if scope["method"] == "POST" and not head["asks"]:
            waiting = time.monotonic() - head[CAME]
            if refused := self._doorman(
                b"?".join([scope["raw_path"], scope["query_string"]]), scope["headers"], waiting
            ):
                self._say(number, refused.status, refused.whole_headers, refused.body)
                return
        incoming = self.open[number] = Incoming(self, number, AHEAD if head["asks"] else 0)
        scope["state"] = {CAME: head[CAME], LEFT: incoming.told}
        self._run(self._answer(number, incoming, scope))

    def _classify(self, number: int, payload: bytes, shortcut: Shortcut) -> None:
        """A whole request for an image to be classified, which stays there: as `_begin`, past the application."""
        came, size = WHOLE.unpack_from(payload)
        query, address, *lines = parted(payload[WHOLE.size :])
        headers = paired(lines)
        if refused := self._doorman(_PATH + query, headers, time.monotonic() - came):
            self._say(number, refused.status, refused.whole_headers, refused.body)
            return
        incoming = self.open[number] = Incoming(self, number)
        incoming.hold(False, size)
        scope = {
            "type": "http",
            "method": "POST",
            "path": CLASSIFY.path,
            "query_string": query,
            "headers": headers,
            "client": (address.decode(), 0) if address else None,
            "state": {CAME: came, LEFT: incoming.told},
        }
        self._run(self._answer_short(number, incoming, shortcut.answer(scope, incoming.receive)))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_short(self, number: int, incoming: Incoming, answer: Awaitable[Response]) -> None:
        """One request that came whole."""
        elsewhere.set(incoming)
        try:
            response = await answer
            self._say(number, response.status_code, response.raw_headers, bytes(response.body))
        except BaseException:
            self.channel.send(Kind.CUT, number)
            raise
        finally:
            del self.open[number]

    async def _answer(self, number: int, incoming: Incoming, scope: Scope) -> None:
        """One request, to the end of its answer."""
        elsewhere.set(incoming)
        ended = False

        async def send(message: Message) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                self._say(number, message["status"], message["headers"])
            else:
                ended = not message.get("more_body", False)
                self.channel.send(Kind.DATA, number, b"\0" if ended else b"\1", message.get("body", b""))
            await self.channel.drain()

        try:
            await self._app(scope, incoming.receive, send)
        finally:
            del self.open[number]
            if not ended:
                self.channel.send(Kind.CUT, number)

    def _say(self, number: int, status: int, headers: Iterable[Header], body: bytes | None = None) -> None:
        """A whole answer, or how it begins."""
        head = joined(part for header in headers for part in header)
        kind = Kind.START if body is None else Kind.ANSWER
        self.channel.send(kind, number, STARTED.pack(status, len(head)), head, body or b"")


def _scope(head: dict[str, Any]) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head["headers"]],
        **{name: head[name] for name in ("method", "path", "scheme", "http_version")},
        **{name: head[name] and tuple(head[name]) for name in ("client", "server")},
        **{name: head[name].encode("latin-1") for name in ("raw_path", "query_string")},
    }


def _error(name: str, detail: str, extra: dict[str, Any]) -> ServeError:
    """What a front end found wrong with an image; `InternalError` for what no image can have."""
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, ServeError):
        return kind(detail, **extra)
    return InternalError(detail)
