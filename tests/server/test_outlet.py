"""Head and body of an answer go out as one, in order, and nothing is kept back."""

import asyncio

from server.outlet import MOST_JOINED, Outlet

HEAD, OTHER = b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"


class Line:
    """A connection that notes what is sent."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.sent: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def leave(self) -> None:
        self.sent.append(b"(end)")

    def is_closing(self) -> bool:
        return False


def sent(*parts: bytes | None) -> list[bytes]:
    """What is sent of these, written in a turn of the event loop each time up to a None, and of closing at the end."""

    async def scenario() -> list[bytes]:
        line = Line()
        outlet = Outlet(line)
        for part in parts:
            if part is None:
                await asyncio.sleep(0)
            else:
                outlet.write(part)
        outlet.close()
        await asyncio.sleep(0)
        return line.sent

    return asyncio.run(scenario())


def test_a_head_goes_out_with_its_body() -> None:
    assert sent(HEAD, b"body", b"more") == [HEAD + b"body", b"more", b"(end)"]
    assert sent(HEAD, b"body", HEAD, b"next") == [HEAD + b"body", HEAD + b"next", b"(end)"]


def test_a_head_alone_does_not_wait_longer_than_a_turn() -> None:
    assert sent(HEAD, None, b"later") == [HEAD, b"later", b"(end)"]
    assert sent(OTHER) == [OTHER, b"(end)"]
    assert sent(OTHER, HEAD, b"body") == [OTHER, HEAD + b"body", b"(end)"]


def test_what_is_said_past_it_can_have_the_head_go_first() -> None:
    async def scenario() -> list[bytes]:
        line = Line()
        outlet = Outlet(line)
        outlet.write(HEAD)
        outlet.flush()
        line.write(b"said")
        await asyncio.sleep(0)
        return line.sent

    assert asyncio.run(scenario()) == [HEAD, b"said"]


def test_a_large_body_is_not_copied() -> None:
    large = bytes(MOST_JOINED + 1)
    assert sent(HEAD, large) == [HEAD, large, b"(end)"]
