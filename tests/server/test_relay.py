"""What a front end sends on of a request, and what becomes of the answer: both ends of its channel in one loop."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from lookup_tables.table import LookupTable, folder
from server.channel import OPENED, READ, READING, STARTED, TO_COME, WRONG, Channel, Kind, joined, paired, parted
from server.connection import CAME, LEFT, UNREAD
from server.frontend import Given, Relay
from server.images import Limits
from server.shared import Shared

LENGTH = (b"content-length", b"4")
ANSWERED = [
    {"type": "http.response.start", "status": 200, "headers": [(b"x-stitch-id", b"7")]},
    {"type": "http.response.body", "body": b"{}", "more_body": False},
]


class Engine:
    """The other end: keeps what comes, and answers as it is told to."""

    def __init__(self) -> None:
        self.came: asyncio.Queue[tuple[Kind, int, bytes]] = asyncio.Queue()
        self.lost = asyncio.Event()
        self.channel = Channel(lambda *frame: self.came.put_nowait(frame), self.lost.set)

    def answer(self, number: int) -> None:
        self.channel.send(Kind.START, number, STARTED.pack(200), joined([b"x-stitch-id", b"7"]))
        self.channel.send(Kind.DATA, number, b"\0{}")


class Asking:
    """A request as the server hands it over: its body has `come` with its head, or comes after it."""

    def __init__(self, body: bytes, *, come: bool = True, **changes: Any) -> None:
        self.sent: list[dict[str, Any]] = []
        self.left: set[Callable[[], object]] = set()
        self._parts = [body]
        headers = [(b"host", b"x"), (b"content-type", b"image/jpeg"), (b"x-request-id", b"mine")]
        self.scope: dict[str, Any] = {
            "type": "http", "method": "POST", "path": "/classify", "raw_path": b"/classify", "scheme": "http",
            "query_string": b"stitch=7", "http_version": "1.1", "client": ("1.2.3.4", 5), "server": ("5.6.7.8", 9),
            "headers": [*headers, (b"content-length", b"%d" % len(body))],
            "state": {CAME: 12.5, LEFT: self.left, UNREAD: lambda: not come and bool(self._parts)},
        } | changes  # fmt: skip

    async def receive(self) -> dict[str, Any]:
        if self._parts:
            return {"type": "http.request", "body": self._parts.pop(), "more_body": False}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


def given(memory: Shared, **changes: Any) -> Given:
    usual: dict[str, Any] = {
        "listening": [], "channel": 0, "memory": memory.file, "size": memory.size, "places": memory.places,
        "preprocessing": asdict(LookupTable.load(folder("digits")).family.preprocessing), "limits": asdict(Limits()),
        "exact": False, "threads": 1, "connections": 9, "patience": 60, "drain": 60,
        "proxies": [], "cert": None, "key": None, "log_format": "text",
    }  # fmt: skip
    return Given(**usual | changes)


@asynccontextmanager
async def relaying(**changes: Any) -> AsyncIterator[tuple[Relay, Engine, Shared]]:
    memory, (ours, theirs) = Shared.create(64, 1), socket.socketpair()
    relay, engine, loop = Relay(given(memory, **changes), memory, lambda: None), Engine(), asyncio.get_running_loop()
    await loop.create_unix_connection(lambda: relay.channel, sock=ours)
    await loop.create_unix_connection(lambda: engine.channel, sock=theirs)
    try:
        yield relay, engine, memory
    finally:
        relay.channel.close()
        await engine.lost.wait()
        engine.channel.close()
        memory.close()
        await asyncio.sleep(0)  # the transports close


def jpeg() -> bytes:
    file = BytesIO()
    Image.new("RGB", (64, 64), (200, 100, 50)).save(file, "JPEG")
    return file.getvalue()


def test_an_image_that_has_come_is_sent_on_in_one_frame_and_read_where_it_is() -> None:
    async def scenario() -> None:
        async with relaying() as (relay, engine, memory):
            asking, body = Asking(jpeg()), jpeg()
            answering = asyncio.create_task(relay(asking.scope, asking.receive, asking.send))
            kind, number, said = await engine.came.get()
            assert kind is Kind.OPEN
            assert OPENED.unpack_from(said) == (12.5, len(body), False)
            lines = parted(said[OPENED.size :])
            assert lines[:9] == [
                b"POST", b"http", b"1.1", b"1.2.3.4", b"5", b"5.6.7.8", b"9", b"/classify", b"stitch=7"
            ]  # fmt: skip
            assert paired(lines[9:]) == asking.scope["headers"]
            engine.channel.send(Kind.DECODE, 3, READING.pack(time.monotonic() + 60, number))
            kind, reading, read = await engine.came.get()
            assert (kind, reading, READ.unpack(read)[1]) == (Kind.READ, 3, 0)
            assert memory.look(0)[:, 30, 30] == pytest.approx([200, 100, 50], abs=3)
            engine.answer(number)
            await answering
            assert asking.sent == ANSWERED
            assert not asking.left
            assert engine.came.empty()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("changes", "limits", "asks"),
    [
        ({"come": False}, Limits(), False),
        ({"headers": [(b"content-type", b"image/jpeg")]}, Limits(), False),
        ({"headers": [(b"content-type", b"multipart/form-data; boundary=x"), LENGTH]}, Limits(), False),
        ({"headers": [LENGTH, (b"expect", b"100-continue")]}, Limits(), True),
        ({}, Limits(max_bytes=3), False),
    ],
)
def test_of_whatever_else_is_asked_the_body_is_told_of_apart(
    changes: dict[str, Any], limits: Limits, asks: bool
) -> None:
    async def scenario() -> None:
        async with relaying(limits=asdict(limits)) as (relay, engine, _):
            asking = Asking(b"body", **changes)
            answering = asyncio.create_task(relay(asking.scope, asking.receive, asking.send))
            kind, number, said = await engine.came.get()
            assert kind is Kind.OPEN
            assert OPENED.unpack_from(said) == (12.5, TO_COME, asks)
            engine.answer(number)
            await answering
            assert asking.sent[1] == ANSWERED[1]

    asyncio.run(scenario())


def test_a_client_that_leaves_meanwhile_is_told_of() -> None:
    async def scenario() -> None:
        async with relaying() as (relay, engine, _):
            asking = Asking(jpeg())
            answering = asyncio.create_task(relay(asking.scope, asking.receive, asking.send))
            _, number, _said = await engine.came.get()
            for tell in tuple(asking.left):
                tell()
            assert (await engine.came.get())[:2] == (Kind.GONE, number)
            engine.answer(number)
            await answering
            assert not asking.left

    asyncio.run(scenario())


def test_of_a_client_that_has_left_before_nothing_is_sent_on() -> None:
    async def scenario() -> None:
        async with relaying() as (relay, engine, _):
            asking = Asking(jpeg())

            async def gone() -> dict[str, Any]:
                return {"type": "http.disconnect"}

            await relay(asking.scope, gone, asking.send)
            kind, *_rest = await engine.came.get()
            assert (kind, asking.sent) == (Kind.GONE, [])

    asyncio.run(scenario())


def test_what_is_wrong_with_an_image_is_told() -> None:
    async def scenario() -> None:
        async with relaying() as (relay, engine, _):
            asking = Asking(b"no image")
            answering = asyncio.create_task(relay(asking.scope, asking.receive, asking.send))
            _, number, _said = await engine.came.get()
            engine.channel.send(Kind.DECODE, 3, READING.pack(time.monotonic() + 60, number))
            _, _, read = await engine.came.get()
            assert READ.unpack_from(read)[1] == WRONG
            assert json.loads(read[READ.size :]) == ["BadImage", "8 bytes are too few for an image", {}]
            engine.answer(number)
            await answering

    asyncio.run(scenario())
