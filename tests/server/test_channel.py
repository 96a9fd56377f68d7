"""Frames between processes: whole and in order, however the socket cuts them."""

import asyncio
import socket

from hypothesis import given
from hypothesis import strategies as st

from server.channel import Channel, Kind

Frame = tuple[Kind, int, bytes]
FRAMES = st.lists(st.tuples(st.sampled_from(Kind), st.integers(0, 2**64 - 1), st.binary(max_size=300)), max_size=20)


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


def nothing() -> None:
    pass


async def written(frames: list[Frame]) -> bytes:
    channel, wire = Channel(lambda *_: None, nothing), Wire()
    channel.connection_made(wire)
    for kind, number, payload in frames:
        channel.send(kind, number, payload[:7], payload[7:])
    await asyncio.sleep(0)
    return wire.written


@given(FRAMES, st.lists(st.integers(1, 100), min_size=1))
def test_what_is_sent_is_taken_however_it_is_cut(frames: list[Frame], sizes: list[int]) -> None:
    taken: list[Frame] = []
    channel = Channel(lambda *frame: taken.append(frame), nothing)
    left, turn = asyncio.run(written(frames)), 0
    while left:
        size = sizes[turn % len(sizes)]
        channel.data_received(left[:size])
        left, turn = left[size:], turn + 1
    assert taken == frames


def test_who_is_slow_is_waited_for_and_who_has_gone_is_told_of() -> None:
    async def scenario() -> list[str]:
        said: list[str] = []
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        loop, channel = asyncio.get_running_loop(), Channel(lambda *_: None, lambda: said.append("lost"))
        await loop.create_unix_connection(lambda: channel, sock=ours)
        channel.send(Kind.DATA, 1, bytes(4_000_000))
        await asyncio.sleep(0)
        draining = asyncio.create_task(channel.drain())
        await asyncio.sleep(0)
        assert not draining.done()
        came = 0
        while came < 4_000_000:
            came += len(await loop.sock_recv(theirs, 1_000_000))
        await draining
        theirs.close()
        while not channel.closed or not said:
            await asyncio.sleep(0)
        channel.send(Kind.DATA, 1, b"into the void")
        await channel.drain()
        return said

    assert asyncio.run(scenario()) == ["lost"]
