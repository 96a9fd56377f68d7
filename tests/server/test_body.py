"""How much of all bodies is held, and who gives way when that is too much."""

import asyncio

import pytest
from fastapi import Request
from starlette.types import Message

from server.body import FORM_OVERHEAD, PATIENCE, Bodies, read_image, read_images
from server.errors import BadRequest, ClientGone, Overloaded, SlowBody, TooLarge, UnsupportedType

FORM = "multipart/form-data; boundary=b"
FILE = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'


class Sender:
    """A client whose pieces arrive when the test says so."""

    def __init__(self, **headers: str) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.request = Request({"type": "http", "headers": raw}, self._messages.get)

    def send(self, piece: bytes, *, more: bool = True) -> None:
        self._messages.put_nowait({"type": "http.request", "body": piece, "more_body": more})

    def leave(self) -> None:
        self._messages.put_nowait({"type": "http.disconnect"})


class Clock:
    """Stands still until told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class House:
    """Room for 100 bytes."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.bodies = Bodies(100, self.clock)

    def receive(self, sender: Sender, limit: int = 1000, timeout: float = 60) -> "asyncio.Task[bytes]":
        """Read it, and hold it until cancelled."""

        async def hold() -> bytes:
            with self.bodies.hold() as body:
                return await read_image(sender.request, body, limit, timeout)

        return asyncio.create_task(hold())

    async def until_held(self, size: int) -> None:
        while self.bodies.held != size:
            await asyncio.sleep(0)


def send(*pieces: bytes, **headers: str) -> Sender:
    sender = Sender(**headers)
    for piece in pieces:
        sender.send(piece)
    sender.send(b"", more=False)
    return sender


def test_a_body_is_held_until_its_block_is_left() -> None:
    async def scenario() -> None:
        house = House()
        with house.bodies.hold() as body:
            assert await read_image(send(b"ca", b"t").request, body, 3, 60) == b"cat"
            assert house.bodies.held == 3
            assert not house.bodies.arriving
        assert house.bodies.held == 0

    asyncio.run(scenario())


def test_what_is_refused_is_no_longer_held() -> None:
    async def scenario() -> None:
        house = House()
        silent, gone = Sender(), Sender()
        silent.send(b"cat")
        gone.send(b"cat")
        gone.leave()
        for sender, limit, timeout, refusal in (
            (send(b"cats"), 3, 60.0, TooLarge),
            (send(b"cat", content_length="4"), 3, 60.0, TooLarge),
            (silent, 3, 0.01, SlowBody),
            (gone, 3, 60.0, ClientGone),
            (send(b"cat", content_type="text/html"), 3, 60.0, UnsupportedType),
            (send(bytes(200)), 1000, 60.0, Overloaded),
        ):
            with pytest.raises(refusal):
                await house.receive(sender, limit, timeout)
            assert house.bodies.held == 0
            assert not house.bodies.arriving

    asyncio.run(scenario())


def test_a_length_too_large_is_refused_before_anything_is_read() -> None:
    async def scenario() -> None:
        with pytest.raises(TooLarge):
            await House().receive(Sender(content_length="1001"))

    asyncio.run(scenario())


def test_when_all_is_held_who_comes_is_refused_and_who_is_there_goes_on() -> None:
    async def scenario() -> None:
        house = House()
        first = Sender()
        reading = house.receive(first)
        first.send(bytes(60))
        await house.until_held(60)
        with pytest.raises(Overloaded) as refusal:
            await house.receive(send(bytes(50)))
        assert refusal.value.retry_after
        assert await house.receive(send(bytes(40))) == bytes(40)
        first.send(bytes(40), more=False)
        assert await reading == bytes(100)

    asyncio.run(scenario())


def test_the_slowest_senders_give_way_and_no_more_than_must() -> None:
    async def scenario() -> None:
        house = House()
        slow, slower, silent = Sender(), Sender(), Sender()
        reading = [house.receive(sender) for sender in (slow, slower, silent)]
        slow.send(bytes(50))
        slower.send(bytes(40))
        await house.until_held(90)
        house.clock.now += PATIENCE * 2
        assert await house.receive(send(bytes(50))) == bytes(50)
        with pytest.raises(Overloaded):
            await reading[1]
        assert house.bodies.held == 50
        for sender in (slow, silent):
            sender.send(b"", more=False)
        assert [await reading[0], await reading[2]] == [bytes(50), b""]

    asyncio.run(scenario())


def test_a_slow_sender_that_finds_no_room_gives_way_itself() -> None:
    async def scenario() -> None:
        house = House()
        with house.bodies.hold() as decoded:
            await read_image(send(bytes(90)).request, decoded, 1000, 60)
            slow = Sender()
            reading = house.receive(slow)
            slow.send(bytes(5))
            await house.until_held(95)
            house.clock.now += PATIENCE * 2
            slow.send(bytes(6))
            slow.send(bytes(6))
            with pytest.raises(Overloaded):
                await reading
            assert house.bodies.held == 90, "what has arrived stays"

    asyncio.run(scenario())


def test_a_form_of_one_image_may_have_a_little_beside_it() -> None:
    async def read(body: bytes) -> bytes:
        with Bodies(10**6).hold() as held:
            return await read_image(send(body, content_type=FORM).request, held, 3, 60)

    assert asyncio.run(read(FILE + b"cat\r\n--b--")) == b"cat"
    assert asyncio.run(read(FILE + b"cat\r\n--b--" + bytes(FORM_OVERHEAD - 200))) == b"cat"
    for body in (FILE + b"cats\r\n--b--", FILE + b"cat\r\n--b--" + bytes(FORM_OVERHEAD)):
        with pytest.raises(TooLarge):
            asyncio.run(read(body))


def test_a_form_of_several_is_bounded_as_a_whole_and_each() -> None:
    async def read(body: bytes) -> list[object]:
        with Bodies(10**6).hold() as held:
            form = await read_images(send(body, content_type=FORM).request, held, 300, 3, 60)
            return [image if isinstance(image, bytes) else type(image) for image in form.images]

    assert asyncio.run(read(FILE + b"cat\r\n" + FILE + b"cats\r\n--b--")) == [b"cat", TooLarge]
    with pytest.raises(TooLarge):
        asyncio.run(read(FILE + b"cat\r\n--b--" + bytes(300)))
    with pytest.raises(BadRequest, match="no file"):
        asyncio.run(read(b"--b--"))
