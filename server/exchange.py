"""A request on its way through a front end."""

import asyncio
from collections.abc import Mapping
from typing import Any


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

    def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Its answer begins."""
        self.answer.put_nowait({"type": "http.response.start", "status": status, "headers": headers})

    def go_on(self, body: bytes, more: bool) -> None:
        """A part of it came, to be followed by `more`."""
        self.answer.put_nowait({"type": "http.response.body", "body": body, "more_body": more})

    def keep(self, part: bytes) -> None:
        """Keep a part of the body, or let all of it go once it is more than an image may have."""
        self._left -= len(part)
        if self._left >= 0:
            self.body.append(part)
        else:
            self.body.clear()


def is_image(headers: Mapping[bytes, bytes], most: int, *, unless_form: bool = False) -> bool:
    """Whether a request says that its body is an image, or what is one `unless_form`, of no more than `most` bytes."""
    length, said = headers.get(b"content-length", b""), headers.get(b"content-type", b"").lower()
    image = not said.startswith(b"multipart/") if unless_form else said.startswith(b"image/")
    return image and length.isdigit() and int(length) <= most
