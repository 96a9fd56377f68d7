"""One request that came by a front end, as the engine's process has it."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.types import Message

from server.channel import Channel, Kind
from server.engine import Image
from server.reading import HELD
from server.stages import Stages


class Source(Protocol):
    """Where it came from."""

    channel: Channel

    def read(self, body: bytes, number: int, stages: Stages) -> Awaitable[Image]:
        """What an image becomes for the engine."""


class Incoming:
    """One request: the messages that its application receives, and what reads its images."""

    def __init__(self, front: Source, number: int, owed: int = 0) -> None:
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
