"""Head and body of an answer leave together, and nothing waits for what does not come."""

import asyncio
from collections.abc import Iterable
from typing import cast

import pytest

from server.connection import Connection
from server.outlet import Outlet


class Transport:
    """Notes what leaves together."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def writelines(self, pieces: Iterable[bytes]) -> None:
        self.sent.append(b"".join(pieces))


class Open:
    """As much of a connection as an outlet needs."""

    def __init__(self) -> None:
        self.loop, self.transport = asyncio.get_running_loop(), Transport()
        self.closing = False

    def is_closing(self) -> bool:
        return self.closing


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ([b"head", b"body"], [b"headbody"]),
        ([b"head", b""], [b"head"]),
        ([b"head"], [b"head"]),
        ([b"head", b"one", b"two", b"three", b"four"], [b"headone", b"twothree", b"four"]),
        ([], []),
    ],
)
def test_two_writes_of_one_turn_leave_together(written: list[bytes], sent: list[bytes]) -> None:
    async def scenario() -> None:
        connection = Open()
        outlet = Outlet(cast(Connection, connection))
        for piece in written:
            outlet.write(piece)
        assert connection.transport.sent == sent[: len(written) // 2], "what cannot be more than it is does not wait"
        await asyncio.sleep(0)
        assert connection.transport.sent == sent

    asyncio.run(scenario())


def test_what_is_written_in_one_turn_is_not_kept_for_another() -> None:
    async def scenario() -> None:
        connection = Open()
        outlet = Outlet(cast(Connection, connection))
        for piece in (b"one", b"two"):
            outlet.write(piece)
            await asyncio.sleep(0)
        assert connection.transport.sent == [b"one", b"two"]

    asyncio.run(scenario())


def test_what_is_held_back_keeps_its_place() -> None:
    async def scenario() -> None:
        connection = Open()
        outlet = Outlet(cast(Connection, connection))
        outlet.write(b"zero")
        outlet.hold(b"one", 3600)
        outlet.hold(b"two", 3600)
        await asyncio.sleep(0)
        assert connection.transport.sent == [b"zero", b"one"]
        outlet.write(b"head")
        outlet.write(b"body")
        await asyncio.sleep(0)
        assert connection.transport.sent == [b"zero", b"one", b"twohead", b"body"]

    asyncio.run(scenario())


@pytest.mark.parametrize("seconds", [0.0, 1e-6])
def test_what_is_held_back_leaves_in_its_time(seconds: float) -> None:
    async def scenario() -> None:
        connection = Open()
        outlet = Outlet(cast(Connection, connection))
        outlet.hold(b"refusal", seconds)
        assert connection.transport.sent == []
        async with asyncio.timeout(60):
            while not connection.transport.sent:
                await asyncio.sleep(0)
        assert connection.transport.sent == [b"refusal"]

    asyncio.run(scenario())


def test_nothing_is_sent_to_a_client_that_is_sent_away() -> None:
    async def scenario() -> None:
        connection = Open()
        outlet = Outlet(cast(Connection, connection))
        outlet.write(b"head")
        connection.closing = True
        outlet.flush()
        outlet.hold(b"refusal", 3600)
        outlet.flush()
        await asyncio.sleep(0)
        assert connection.transport.sent == []

    asyncio.run(scenario())


def test_what_waits_for_a_connection_that_has_gone_is_nobodys() -> None:
    failed: list[object] = []

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: failed.append(told))
        connection = Open()
        outlet = Outlet(cast(Connection, connection))
        outlet.write(b"head")
        del connection
        await asyncio.sleep(0)
        outlet.write(b"body")
        outlet.close()
        assert outlet.is_closing()

    asyncio.run(scenario())
    assert not failed
