"""One front end, seen from the engine's process: the application answers its requests, and it decodes for them."""

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from pydantic_core import from_json, to_json
from starlette.types import ASGIApp, Message, Scope

from server import errors
from server.channel import PART, Channel, Kind
from server.connection import CAME, LEFT
from server.engine import Image
from server.errors import InternalError, ServeError, Unavailable
from server.frontend import AHEAD, ASKED
from server.pixels import from_pixels
from server.reading import HELD, elsewhere
from server.refused import Doorman, Header
from server.service import Service
from server.shared import Shared
from server.stages import Stages

LOST = "the front end that this request came by has ended"


class Incoming:
    """One request: the messages that its application receives, and what reads its images."""

    def __init__(self, front: "Attached", number: int, owed: int = 0) -> None:
        self._front, self._number = front, number
        self._owed = owed  # parts to ask for once the application wants the body
        self._messages: deque[Message] = deque()
        self._came = asyncio.Event()
        self._brought = False
        self._received = 0  # bytes of its body
        self.unread, self.gone = True, False
        self.told: set[Callable[[], object]] = set()
        """What is called when its client leaves."""

    def body(self, more: bool, body: bytes) -> None:
        """A part of its body."""
        self._received += len(body)
        self._take({"type": "http.request", "body": body, "more_body": more})

    def hold(self, more: bool, size: int) -> None:
        """A part of its body came, which stays where its client is connected."""
        if not self._brought:  # else all of it is on its way
            self._take({"type": "http.request", "body": b"", "more_body": more, HELD: size})

    def leave(self) -> None:
        """Its client has left, or its front end."""
        self.gone = True
        self._came.set()
        for tell in tuple(self.told):
            tell()

    async def read(self, body: bytes, stages: Stages) -> Image:
        """What its image, a file's bytes, becomes for the engine: read where its client is connected."""
        return await self._front.read(body, self._number if len(body) == self._received else 0, stages)

    async def receive(self) -> Message:
        """As ASGI has it."""
        while HELD in (message := await self.held()):
            if not self._brought:
                self._brought = True
                self._messages.clear()
                self._front.channel.send(Kind.BRING, self._number)
        return message

    async def held(self) -> Message:
        """The same, but what is held is left where it is."""
        for _ in range(self._owed):
            self._front.channel.send(Kind.MORE, self._number)
        self._owed = 0
        while not (self._messages or self.gone):
            self._came.clear()
            await self._came.wait()
        if self.gone:
            return {"type": "http.disconnect"}
        message = self._messages.popleft()
        if message["more_body"] and HELD not in message:
            self._front.channel.send(Kind.MORE, self._number)
        return message

    def _take(self, message: Message) -> None:
        self._messages.append(message)
        self.unread = message["more_body"]
        self._came.set()


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
        self._app, self._service, self._memory, self.socket, self._doorman = app, service, memory, connected, doorman
        self.channel = Channel(self.take, self._on_lost)
        self.open: dict[int, Incoming] = {}
        self.gone = asyncio.Event()
        """Set when it has ended."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = count(1)
        self._reading: dict[int, asyncio.Future[dict[str, Any]]] = {}

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
        reading = next(self._numbers)
        found = self._reading[reading] = asyncio.get_running_loop().create_future()
        asked = ASKED.pack(stages.deadline, number)
        self.channel.send(Kind.DECODE, reading, asked, b"" if number else body)
        try:
            said = await found
        except asyncio.CancelledError:
            if found.cancelled():
                self.channel.send(Kind.DROP, reading)
            elif not found.exception():  # it came in the same moment
                self._free(found.result())
            raise
        finally:
            del self._reading[reading]
        try:
            stages.end("decode_wait", said["began"])
            if "error" in said:
                raise _error(said)
            if "place" not in said:  # its time was over before there was one
                stages.end("decode_wait")
                raise Unavailable("the front end has no room for a picture; come back later")
            image = from_pixels(self._memory.take(said["place"]), self._service.table.family.preprocessing)
        finally:
            self._free(said)
        stages.end("decode")
        return image

    def _free(self, said: dict[str, Any]) -> None:
        if "place" in said:
            self.channel.send(Kind.FREE, said["place"])

    def take(self, kind: Kind, number: int, payload: bytes) -> None:
        """A frame that came."""
        if kind is Kind.OPEN:
            self._begin(number, from_json(payload))
        elif kind is Kind.BODY and number in self.open:
            self.open[number].body(payload[0] > 0, payload[1:])
        elif kind is Kind.HELD and number in self.open:
            self.open[number].hold(*PART.unpack(payload))
        elif kind is Kind.GONE and number in self.open:
            self.open[number].leave()
        elif kind is Kind.READ:
            said, found = from_json(payload), self._reading.get(number)
            if found and not found.done():
                found.set_result(said)
            else:
                self._free(said)
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
                self._start(number, refused.status, refused.whole_headers)
                self._data(number, False, refused.body)
                return
        incoming = self.open[number] = Incoming(self, number, AHEAD if head["asks"] else 0)
        scope["state"] = {CAME: head[CAME], LEFT: incoming.told}
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

    def _start(self, number: int, status: int, headers: Iterable[Header]) -> None:
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        self.channel.send(Kind.START, number, to_json([status, pairs]))

    def _data(self, number: int, more: bool, body: bytes) -> None:
        self.channel.send(Kind.DATA, number, b"\1" if more else b"\0", body)


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


def _error(said: dict[str, Any]) -> ServeError:
    """What a front end found wrong with an image; `InternalError` for what no image can have."""
    kind = getattr(errors, said["error"], None)
    if isinstance(kind, type) and issubclass(kind, ServeError):
        return kind(said["detail"], **said["extra"])
    return InternalError(said["detail"])
