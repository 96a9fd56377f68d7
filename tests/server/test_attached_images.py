"""Images that came by a front end: what is known of their requests, and where they lie until they are classified."""

import asyncio
import time
from collections.abc import Callable

import numpy as np
from attaching import Told, head, started
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send
from torch import Tensor

from server.attached import LENT, Attached
from server.channel import READ, Kind
from server.connection import CAME
from server.reading import HELD, elsewhere
from server.stages import Stages


def test_what_is_known_of_a_request_is_what_its_front_end_says(attach: Callable[..., tuple[Attached, Told]]) -> None:
    asked: list[Scope] = []
    sizes: list[int] = []

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        asked.append(scope)
        other = elsewhere.get()
        assert other
        sizes.append((await other.held())[HELD])
        assert not other.unread
        await send({"type": "http.response.start", "status": 201, "headers": [(b"x-stitch-id", b"7")]})
        await send({"type": "http.response.body", "body": b"{}"})

    async def scenario() -> Told:
        front, told = attach(app)
        front.take(Kind.OPEN, 4, head(held=321, path="/a%0Ab", of="1.2.3.4"))
        front.take(Kind.OPEN, 5, head(held=0))
        while front.open:
            await asyncio.sleep(0)
        return told

    told = asyncio.run(scenario())
    assert told.frames == [(Kind.START, 4), (Kind.DATA, 4), (Kind.START, 5), (Kind.DATA, 5)]
    assert started(told.said[0]) == (201, [(b"x-stitch-id", b"7")])
    scope, nobodys = asked
    assert (scope["method"], scope["scheme"], scope["http_version"]) == ("POST", "http", "1.1")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a\nb", b"/a%0Ab", b"budget=1")
    assert (scope["client"], scope["server"], nobodys["client"]) == (("1.2.3.4", 5), ("5.6.7.8", 9), None)
    assert scope["headers"] == [(b"x-request-id", b"mine")]
    assert time.monotonic() - scope["state"][CAME] >= 1.0
    assert sizes == [321, 0]


def test_images_lie_where_they_were_read_while_somebody_has_them(attach: Callable[..., tuple[Attached, Told]]) -> None:
    async def scenario() -> list[tuple[Kind, int]]:
        front, told = attach(FastAPI(), places=LENT + 2)

        async def read(number: int, place: int) -> Tensor:
            reading = asyncio.create_task(front.read(b"", 4, Stages(time.monotonic, time.monotonic(), 60.0)))
            await asyncio.sleep(0)
            front.memory.put(place, np.full((3, 64, 64), place, np.uint8))
            front.take(Kind.READ, number, READ.pack(time.monotonic(), place))
            return await reading

        images = [await read(number + 1, number) for number in range(LENT)]
        assert Kind.FREE not in {kind for kind, _ in told.frames}
        copy = await read(LENT + 1, LENT)  # which is free at once
        front.memory.put(LENT, np.zeros((3, 64, 64), np.uint8))
        assert [int(image.max()) for image in (*images, copy)] == list(range(LENT + 1))
        del images[5]
        images.append(await read(LENT + 2, LENT + 1))
        return [frame for frame in told.frames if frame[0] is Kind.FREE]

    assert asyncio.run(scenario()) == [(Kind.FREE, LENT), (Kind.FREE, 5)]
