"""Who looks at the server: together, bounded, at no cost without anybody, and let go at once."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count

import pytest

from server.errors import Draining, Unavailable
from server.feed import KEPT, Feed


class Readings:
    """Counts how often it was read."""

    def __init__(self) -> None:
        self.numbers = count(1)
        self.last = 0

    def __call__(self) -> str:
        self.last = next(self.numbers)
        return str(self.last)


async def turns(many: int = 20) -> None:
    for _ in range(many):
        await asyncio.sleep(0)


def test_all_hear_the_same_and_nothing_is_read_for_nobody() -> None:
    async def scenario() -> None:
        readings = Readings()
        feed = Feed(readings, every=0)
        await turns()
        assert readings.last == 0
        with feed.place(), feed.place():
            first, second = feed.events(), feed.events()
            assert [await anext(each) for each in (first, second)] == ["retry: 3000\nevent: history\ndata: []\n\n"] * 2
            heard = await asyncio.gather(anext(first), anext(second))
            assert heard[0] == heard[1]
            assert heard[0].startswith("data: ")
        await turns()
        after = readings.last
        await turns()
        assert readings.last == after

    asyncio.run(scenario())


def test_who_comes_later_is_told_of_the_last_readings_alone() -> None:
    async def scenario() -> None:
        readings = Readings()
        feed = Feed(readings, every=0)
        with feed.place():
            while readings.last < 2 * KEPT:
                await asyncio.sleep(0)
            history = await anext(feed.events())
            kept = history.partition("data: [")[2].strip().removesuffix("]").split(",")
            assert len(kept) == KEPT
            assert int(kept[-1]) == readings.last

    asyncio.run(scenario())


def test_there_is_room_for_so_many() -> None:
    async def scenario() -> None:
        feed = Feed(Readings(), most=2)
        with feed.place():
            with feed.place():
                with pytest.raises(Unavailable, match="2 look"), feed.place():
                    pass
                assert feed.watching == 2
            with feed.place():
                pass
        assert feed.watching == 0

    asyncio.run(scenario())


def test_at_the_end_all_are_let_go_and_nobody_is_let_in() -> None:
    async def last(events: AsyncIterator[str]) -> list[str]:
        return [event async for event in events]

    async def scenario() -> None:
        feed = Feed(Readings(), every=3600)
        with feed.place(), feed.place():
            looking = [asyncio.create_task(last(feed.events())) for _ in range(2)]
            await turns()
            assert not any(task.done() for task in looking)
            feed.end()
            heard = await asyncio.wait_for(asyncio.gather(*looking), 60)
            assert heard[0][1:] in ([], ["data: 1\n\n"])
        with pytest.raises(Draining), feed.place():
            pass
        assert feed.watching == 0

    asyncio.run(scenario())
