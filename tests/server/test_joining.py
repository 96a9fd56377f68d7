"""Who asks again as soon as it is answered joins those who wait, rather than wait for a batch of theirs."""

import asyncio

import pytest
import test_lanes
from made_up import small_table
from test_batcher import House, house

from server.batcher import TURNS


async def asking_twice(home: House) -> None:
    """A client: its answer leaves in one turn of the event loop, what it asks next is read in another."""
    await home.batcher.submit("a", home.any, home.clock.now + 10.0)
    for _ in range(2):
        await asyncio.sleep(0)
    await home.batcher.submit("a, again", home.any, home.clock.now + 10.0)


@pytest.mark.parametrize(("refused", "second"), [(False, ["b", "a, again"]), (True, ["b"])])
def test_who_asks_again_at_once_is_in_the_next_batch_unless_some_are_refused(refused: bool, second: list[str]) -> None:
    async def scenario() -> None:
        async with house(small_table()) as home:
            home.engine.gate.clear()
            client = asyncio.create_task(asking_twice(home))
            await home.until_running()
            other = home.submit("b")
            await home.until_queued(1)
            if refused:
                home.controller.turn_away()
            home.engine.gate.set()
            await asyncio.wait([client, other])
            assert home.engine.batches[1][0] == second

    asyncio.run(scenario())


async def turns_between(lanes: int) -> int:
    """Of the event loop, from when a batch ends until the next begins."""
    async with test_lanes.house(lanes) as home:
        await home.ask("a")
        await home.ask("b")
        home.hands.end(0)
        count = 0
        while len(home.hands.begun) < 2:
            count += 1
            await asyncio.sleep(0)
        return count


def test_beside_a_device_that_computes_by_itself_the_next_batch_begins_at_once() -> None:
    assert asyncio.run(turns_between(2)) == asyncio.run(turns_between(1)) - TURNS
