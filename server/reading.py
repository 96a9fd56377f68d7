"""How an image is read: here, on a thread that decodes, or by the front end that its client is connected to."""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Protocol

from starlette.types import Message

from server.engine import Image
from server.stages import Stages

HELD = "held"
"""In a message: the bytes of a part of the body that is held where its client is connected."""
Reading = Callable[[Stages], Awaitable[Image]]
"""Gives what the engine takes; ends the stages `decode_wait` and `decode`. Raises what is wrong with the image."""


def timed(read: Callable[[], Image], stages: Stages) -> Image:
    """What `read` gives, with the stages before it and of it ended; it is not read where the deadline has passed."""
    stages.end("decode_wait")
    image = read()
    stages.end("decode")
    return image


async def here(read: Callable[[], Image], stages: Stages) -> Image:
    """As `timed`, at once: for what is not worth a thread."""
    return timed(read, stages)


class Elsewhere(Protocol):
    """Another process, which reads images for this one."""

    @property
    def unread(self) -> bool:
        """Whether a part of the request's body has not come yet, as far as is known here."""

    async def read(self, body: bytes, stages: Stages) -> Image:
        """An image file's bytes -> what the engine takes, as a `Reading`; none: the body that is held there."""

    async def held(self) -> Message:
        """As ASGI's `receive`, but a part of a body that stays there has no bytes: HELD is how many it has."""


elsewhere: ContextVar[Elsewhere | None] = ContextVar("elsewhere", default=None)
"""Who reads the images of the request that is being answered; None: this process."""
