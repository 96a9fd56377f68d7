"""One front end, seen from the engine's process: the application answers its requests, and it decodes for them."""

import asyncio
import json
import socket
from collections import deque
from itertools import count
from typing import Any

from starlette.types import ASGIApp, Message, Scope

from server import errors
from server.channel import Channel, Kind
from server.connection import CAME
from server.engine import Image
from server.errors import InternalError, ServeError, Unavailable
from server.frontend import AHEAD, ASKED
from server.pixels import from_pixels
from server.reading import elsewhere
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
        self.gone = False
        self.received = 0
        """Bytes of its body."""

    def body(self, more: bool, body: bytes) -> None:
        """A part of its body."""
        self.received += len(body)
        self._messages.append({"type": "http.request", "body": body, "more_body": more})
        self._came.set()

    def leave(self) -> None:
        """Its client has left, or its front end."""
        self.gone = True
        self._came.set()

    async def read(self, body: bytes, stages: Stages) -> Image:
        """What its image, a file's bytes, becomes for the engine: read where its client is connected."""
        return await self._front.read(body, self._number if len(body) == self.received else 0, stages)

    async def receive(self) -> Message:
        """As ASGI has it."""
        for _ in range(self._owed):
            self._front.channel.send(Kind.MORE, self._number)
        self._owed = 0
        while not self._messages:
            if self.gone:
                return {"type": "http.disconnect"}
            self._came.clear()
            await self._came.wait()
        message = self._messages.popleft()
        if message["more_body"]:
            self._front.channel.send(Kind.MORE, self._number)
        return message


class Attached:
    """A front end on a socket, with memory that it writes pictures to."""

    def __init__(self, app: ASGIApp, service: Service, memory: Shared, connected: socket.socket) -> None:
        self._app, self._service, self._memory, self.socket = app, service, memory, connected
        self.channel = Channel(self.take, self._on_lost)
        self.open: dict[int, Incoming] = {}
        self.gone = asyncio.Event()
        """Set when it has ended."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = count(1)
        self._reading: dict[int, asyncio.Future[dict[str, Any]]] = {}

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
            head = json.loads(payload)
            incoming = self.open[number] = Incoming(self, number, AHEAD if head["asks"] else 0)
            task = asyncio.create_task(self._answer(number, incoming, head))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif kind is Kind.BODY and number in self.open:
            self.open[number].body(payload[0] > 0, payload[1:])
        elif kind is Kind.GONE and number in self.open:
            self.open[number].leave()
        elif kind is Kind.READ:
            said, found = json.loads(payload), self._reading.get(number)
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

    async def _answer(self, number: int, incoming: Incoming, head: dict[str, Any]) -> None:
        """One request, from its head to the end of its answer."""
        elsewhere.set(incoming)

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]
                self.channel.send(Kind.START, number, json.dumps([message["status"], pairs]).encode())
            else:
                more = b"\1" if message.get("more_body", False) else b"\0"
                self.channel.send(Kind.DATA, number, more, message.get("body", b""))
            await self.channel.drain()

        try:
            await self._app(_scope(head), incoming.receive, send)
        finally:
            del self.open[number]
            self.channel.send(Kind.CUT, number)


def _scope(head: dict[str, Any]) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "root_path": "",
        "state": {} if head[CAME] is None else {CAME: head[CAME]},
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
