"""Requests' bodies, bounded in bytes and time each and in bytes all together: an image, or a form of images."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, Self

from fastapi import Request
from starlette.types import Receive

from server.errors import BadRequest, ClientGone, Overloaded, ServeError, SlowBody, TooLarge, UnsupportedType
from server.form import MOST_IMAGES, Form, FormReader
from server.images import check_type
from server.reading import HELD, elsewhere

FORM = "multipart/form-data"
FORM_OVERHEAD = 64 * 1024  # bytes of boundaries and part headers beside the file
CURL = "curl -F image=@cat.jpg"
PATIENCE = 1.0  # seconds that a sender may be slow before it has to give way to others


class Sent(Protocol):
    """What a body comes with: a request over HTTP, or what hands out its messages as ASGI has them."""

    @property
    def headers(self) -> Mapping[str, str]:
        """By lower-case name."""

    @property
    def receive(self) -> Receive:
        """Gives the next message."""


class Held(NamedTuple):
    """What may stay where its client is connected."""

    headers: Mapping[str, str]
    receive: Receive


class Bodies:
    """The bodies in memory, at most `capacity` bytes in all. While that is full the slowest senders give way."""

    def __init__(self, capacity: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity, self._clock = capacity, clock
        self.held = 0
        """Bytes."""
        self.arriving: set[Body] = set()
        """Those on their way in."""

    def hold(self) -> "Body":
        """For a `with` block: a body whose bytes count as held until it is left."""
        return Body(self, self._clock())

    def count(self, size: int) -> None:
        """`size` more bytes are held, or fewer. Raises Overloaded when there is no room for them."""
        self.held += size
        if size > 0 and self.held > self._capacity:
            self._make_room()

    def _make_room(self) -> None:
        """Drops slow senders, the slowest first, until the rest fits."""
        now = self._clock()
        slow = [body for body in self.arriving if body.size and now - body.since > PATIENCE]
        for body in sorted(slow, key=lambda body: body.size / (now - body.since)):
            if self.held <= self._capacity:
                break
            body.drop()
        if self.held > self._capacity:
            raise _full()


class Body:
    """One body: its bytes so far, and since when they are sent."""

    def __init__(self, bodies: Bodies, since: float) -> None:
        self._bodies, self.since = bodies, since
        self.size = 0
        self._timer: asyncio.Timeout | None = None
        self._dropped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    async def receive(self, request: Sent, limit: int, timeout: float | None, take: Callable[[bytes], object]) -> None:
        """Hands the bytes to `take` as they come.

        Raises TooLarge past `limit` bytes, by the Content-Length header before anything is read; SlowBody after
        `timeout` seconds, None for a body that has come; Overloaded when there is no room for all bodies; ClientGone.
        """
        length = request.headers.get("content-length", "")
        _check_size(int(length[:20]) if length.isdecimal() else 0, limit)
        if timeout is None:
            await self._receive(request, limit, take)
            return
        try:
            async with asyncio.timeout(timeout) as self._timer:
                self._bodies.arriving.add(self)
                await self._receive(request, limit, take)
        except TimeoutError:
            raise _full() if self._dropped else SlowBody(f"the body did not arrive within {timeout:g} s") from None
        finally:
            self._bodies.arriving.discard(self)

    async def _receive(self, request: Sent, limit: int, take: Callable[[bytes], object]) -> None:
        more = True
        while more:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone("the client left while sending its body")
            piece, more = message.get("body", b""), message.get("more_body", False)
            size = message.get(HELD, len(piece))
            self.size += size
            self._bodies.count(size)
            _check_size(self.size, limit)
            if self._dropped:
                raise _full()
            take(piece)

    def drop(self) -> None:
        """Refuse it, for others' sake, and let its bytes go."""
        self._dropped = True
        self._bodies.arriving.discard(self)
        self.release()
        if self._timer and not self._timer.expired():
            self._timer.reschedule(0)

    def release(self) -> None:
        """Its bytes are no longer held."""
        self._bodies.count(-self.size)
        self.size = 0


async def read_image(request: Request, body: Body, max_bytes: int, timeout: float | None) -> bytes:
    """The image's bytes; none where they are held elsewhere, to be read there.

    Raises as `Body.receive` does; UnsupportedType for a declared type that is no image; BadRequest for a form without
    exactly one file, or with a `budget` field, which would not count.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedType("send the image without Content-Encoding", accepted=["identity"])
    if not _is_form(request):
        check_type(request.headers.get("content-type"))
        pieces, other = list[bytes](), elsewhere.get()
        sent = Held(request.headers, other.held) if other else request
        await body.receive(sent, max_bytes, timeout, pieces.append)
        return b"".join(pieces)  # no copy of one that came whole
    reader = FormReader(request.headers["content-type"], max_bytes, most_files=1)
    await body.receive(request, max_bytes + FORM_OVERHEAD, timeout, reader.feed)
    form = reader.finish()
    images = form.images
    if not images:
        raise BadRequest(f"the multipart body has no file field; send one image, as in: {CURL}")
    if form.budgets:
        raise BadRequest("the budget of one image goes into the query, as in ?budget=15ms, not into the form")
    if isinstance(images[0], ServeError):
        raise images[0]
    return images[0]


async def read_images(
    request: Request, body: Body, max_form_bytes: int, max_bytes: int, timeout: float, *, most: int = MOST_IMAGES
) -> Form:
    """A form's images, at most `most`, `max_bytes` each and `max_form_bytes` in all, and budgets.

    Raises as `Body.receive` does; UnsupportedType for what is no form; BadRequest for one without any file or too many.
    """
    if not _is_form(request):
        raise UnsupportedType(f"send the images as {FORM}, as in: {CURL} -F image=@dog.jpg", accepted=[FORM])
    reader = FormReader(request.headers["content-type"], max_bytes, most)
    await body.receive(request, max_form_bytes, timeout, reader.feed)
    form = reader.finish()
    if not form.images:
        raise BadRequest(f"the multipart body has no file field; send images, as in: {CURL} -F image=@dog.jpg")
    return form


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge(f"the body has more than {limit} bytes", max_bytes=limit)


def _full() -> Overloaded:
    detail = "the bodies inside the server take all the memory there is for them; come back later"
    return Overloaded(detail, reason="bodies", stage="receive")
