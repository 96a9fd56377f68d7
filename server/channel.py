"""What a front end and the engine's process say to each other: numbered frames on a socket between the two."""

import asyncio
import struct
from collections.abc import Callable, Iterable
from enum import IntEnum, auto
from typing import cast


class Kind(IntEnum):
    """What a frame is; its number is that of the request, or of the reading, that it belongs to."""

    OPEN = auto()
    """From a front end, as all up to TOLD: a request's head, and whether its whole body is held there."""
    BODY = auto()
    """A part of a request's body, after a byte that says whether more comes."""
    HELD = auto()
    """Of a part of its body, which stays where it is: whether more comes, and how many bytes it has."""
    GONE = auto()
    """Its client has left."""
    READ = auto()
    """What came of a reading."""
    TOLD = auto()
    """A connection was answered in the application's place: the number is the status."""
    MORE = auto()
    """From the engine's process, as all that follow: one more part of a body may come."""
    BRING = auto()
    """A body that was held is wanted: what has come of it is to be sent as one part."""
    START = auto()
    """Status and headers of an answer."""
    DATA = auto()
    """A part of its body, after a byte that says whether more comes."""
    CUT = auto()
    """There will be no more of an answer that has not come to its end."""
    DECODE = auto()
    """An image is to be read: its deadline and its request, and the image where it is not that request's body."""
    DROP = auto()
    """Nobody waits for a reading any more."""
    FREE = auto()
    """A place in the memory that both share, whose number this is, is free again."""
    ADMIT = auto()
    """The application is ready: take clients."""
    STOP = auto()
    """Take no more clients, answer the others, and go."""


OPENED = struct.Struct("<dq?")
"""Begins an OPEN, whose head follows: when it came, by time.monotonic; how many bytes its body has, if all of them are
held, else TO_COME; and whether its client asks before sending it."""
TO_COME = -1
PART = struct.Struct("<?Q")
"""What a HELD frame says."""
READ = struct.Struct("<dq")
"""A READ: when it began, by time.monotonic, and the place where the image lies. There is none where it was too LATE,
or what is WRONG with the image follows as JSON."""
LATE, WRONG = -1, -2
STARTED = struct.Struct("<H")
"""Begins a START: its status; headers follow."""
READING = struct.Struct("<dQ")
"""Begins a DECODE: when the answer is due, by time.monotonic, and whose body the image is; 0: it follows."""
_HEAD = struct.Struct("<IBQ")


def joined(parts: Iterable[bytes]) -> bytes:
    """Parts of a head, none of which can hold the end of a line."""
    return b"\n".join(parts)


def parted(together: bytes) -> list[bytes]:
    """The parts."""
    return together.split(b"\n") if together else []


def paired(parts: list[bytes]) -> list[tuple[bytes, bytes]]:
    """Headers, of which each is two parts."""
    return list(zip(parts[::2], parts[1::2], strict=True))


class Channel(asyncio.Protocol):
    """One end. `take` is called with each frame that comes, `lost` when the other end has gone.

    What is sent in one turn of the event loop leaves together.
    """

    def __init__(self, take: Callable[[Kind, int, bytes], object], lost: Callable[[], object]) -> None:
        self._take, self._lost = take, lost
        self._transport: asyncio.Transport | None = None
        self._came, self._leaving = bytearray(), bytearray()
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent."""
        return self._transport is None or self._transport.is_closing()

    def send(self, kind: Kind, number: int, *parts: bytes) -> None:
        """Send a frame; without effect where the other end has gone."""
        if self.closed:
            return
        if not self._leaving:
            asyncio.get_running_loop().call_soon(self._flush)
        self._leaving += _HEAD.pack(sum(map(len, parts)), kind, number)
        for part in parts:
            self._leaving += part

    async def drain(self) -> None:
        """Wait while the other end is slow to take what was sent."""
        await self._writable.wait()

    def close(self) -> None:
        """End it."""
        if self._transport:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not derive from it

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The other end has gone."""
        self._writable.set()
        self._lost()

    def pause_writing(self) -> None:
        """The other end is slow."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Any number of bytes of frames."""
        came = self._came
        came += data
        at = 0
        try:
            while len(came) - at >= _HEAD.size:
                length, kind, number = _HEAD.unpack_from(came, at)
                start, end = at + _HEAD.size, at + _HEAD.size + length
                if len(came) < end:
                    break
                at = end
                self._take(Kind(kind), number, bytes(memoryview(came)[start:end]))
        finally:
            del came[:at]

    def _flush(self) -> None:
        leaving, self._leaving = self._leaving, bytearray()
        if self._transport and not self._transport.is_closing():
            self._transport.write(leaving)
