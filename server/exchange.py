"""A request on its way through a front end."""

import asyncio
from collections.abc import Mapping
from typing import Any

SAYS_NOTHING = b"application/x-www-form-urlencoded"
"""What curl says of any body."""


class Exchange:
    """One request on its way: its body, as far as an image may be it; how many parts may be sent; what is answered.

    A body that is `held` stays here until it is wanted, and then at most its size is sent.
    """

    def __init__(self, room: int, most: int, held: bool = False) -> None:
        self.body: list[bytes] = []
        self._left = most
        self.held, self.complete = held, False
        self.room = asyncio.Semaphore(room)
        self.answer: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.left = False
        """Whether its client has."""

    def keep(self, part: bytes) -> None:
        """Keep a part of the body, or let all of it go once it is more than an image may have."""
        self._left -= len(part)
        if self._left >= 0:
            self.body.append(part)
        else:
            self.body.clear()


def is_image(headers: Mapping[bytes, bytes], most: int) -> bool:
    """Whether a request's body is most likely an image, of no more than `most` bytes: it says so, or nothing."""
    length = headers.get(b"content-length", b"")
    said = headers.get(b"content-type", SAYS_NOTHING)
    image = said.startswith(b"image/") or (said == SAYS_NOTHING and b"inference-header-content-length" not in headers)
    return image and length.isdigit() and int(length) <= most
