"""Images that came by a front end: the short way to their answer, and where they lie meanwhile."""

import asyncio
import time
from collections.abc import Callable

import numpy as np
from attaching import Told, answered
from fastapi import FastAPI
from starlette.responses import Response
from starlette.types import Receive, Scope
from torch import Tensor

from server.attached import LENT, Attached
from server.channel import READ, WHOLE, Kind, joined
from server.connection import CAME
from server.reading import HELD, elsewhere
from server.shortcut import Shortcut
from server.stages import Stages


class Answering(Shortcut):
    """Says what it is asked, or fails."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.fails, self.asked = fails, list[Scope]()

    async def answer(self, scope: Scope, _: Receive) -> Response:
        self.asked.append(scope)
        if self.fails:
            raise self.fails
        other = elsewhere.get()
        assert other
        message = await other.held()
        return Response(b"%d" % message[HELD], 201, {"x-stitch-id": "7"})


def whole(size: int) -> bytes:
    lines = [b"budget=1", b"1.2.3.4", b"x-request-id", b"mine", b"content-type", b"image/png"]
    return WHOLE.pack(12.5, size) + joined(lines)


async def until_answered(front: Attached) -> None:
    while front.open:
        await asyncio.sleep(0)


def test_an_image_that_has_come_goes_the_short_way(attach: Callable[..., tuple[Attached, Told]]) -> None:
    shortcut = Answering()

    async def scenario() -> Told:
        front, told = attach(FastAPI(), shortcut=shortcut)
        front.take(Kind.WHOLE, 4, whole(321))
        assert list(front.open) == [4]
        await until_answered(front)
        return told

    told = asyncio.run(scenario())
    assert told.frames == [(Kind.ANSWER, 4)]
    status, headers, body = answered(told.said[0])
    assert (status, dict(headers)[b"x-stitch-id"], body) == (201, b"7", b"321")
    [scope] = shortcut.asked
    assert (scope["path"], scope["query_string"], scope["client"]) == ("/classify", b"budget=1", ("1.2.3.4", 0))
    assert scope["headers"] == [(b"x-request-id", b"mine"), (b"content-type", b"image/png")]
    assert scope["state"][CAME] == 12.5


def test_where_the_short_way_breaks_off_nothing_more_is_to_come(
    attach: Callable[..., tuple[Attached, Told]],
) -> None:
    async def scenario() -> list[tuple[Kind, int]]:
        front, told = attach(FastAPI(), shortcut=Answering(OSError("no")))
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        front.take(Kind.WHOLE, 4, whole(321))
        await until_answered(front)
        return told.frames

    assert asyncio.run(scenario()) == [(Kind.CUT, 4)]


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
