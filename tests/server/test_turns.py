"""Who begins in which turn of a real event loop."""

import asyncio
from collections import Counter

from server.turns import EACH, Turns


async def begin(turns: Turns, count: int, gone: frozenset[int] = frozenset()) -> tuple[list[int], Counter[int]]:
    """So many come at once, of whom some leave again -> in which order they begin, and how many in each turn."""
    loop, now, order = asyncio.get_running_loop(), 0, list[int]()
    counted = Counter[int]()

    def tick() -> None:
        nonlocal now
        now += 1
        if len(order) + len(gone) < count:
            loop.call_soon(tick)

    async def one(number: int) -> None:
        await turns.wait()
        order.append(number)
        counted[now] += 1

    tasks = [asyncio.create_task(one(number)) for number in range(count)]
    loop.call_soon(tick)
    await asyncio.sleep(0)
    for number in gone:
        tasks[number].cancel()
    await asyncio.wait(tasks)
    return order, counted


def test_few_begin_in_a_turn_in_the_order_of_their_coming() -> None:
    async def scenario() -> None:
        turns = Turns()
        for _ in range(2):  # afterwards it is as before
            order, counted = await begin(turns, 10 * EACH + 1)
            assert order == list(range(10 * EACH + 1))
            assert max(counted.values()) <= EACH
            assert len(counted) <= 12, "no turn is left out"

    asyncio.run(scenario())


def test_whoever_is_gone_takes_no_turn() -> None:
    async def scenario() -> None:
        gone = frozenset(range(EACH, 3 * EACH))
        order, counted = await begin(Turns(), 5 * EACH, gone)
        assert order == [number for number in range(5 * EACH) if number not in gone]
        assert max(counted.values()) <= EACH

    asyncio.run(scenario())


def test_alone_one_begins_at_once() -> None:
    async def scenario() -> None:
        turns = Turns()
        for _ in range(3):
            waiting = turns.wait()
            try:
                waiting.send(None)
            except StopIteration:
                pass
            else:
                raise AssertionError("it had to wait")
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    asyncio.run(scenario())
