"""Open loop: requests leave when due, whatever became of those before, and latency counts from when they were due.

Lower bounds alone are asserted: a slow machine can only add to a latency.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from server.replay.bench import NOT_SENT, Ask, PreciseSelector, Replayed, Reply, replay, run
from server.replay.report import OK, Outcome
from server.replay.traces import Trace

PATIENCE = 60  # seconds before a test fails


def trace(*arrivals: float) -> Trace:
    return Trace("made", np.array(arrivals), seconds=max(arrivals))


EVENLY = trace(*(i / 1000 for i in range(100)))


def replayed(
    each: Trace, ask: Ask, deadline: float = 1.0, most: int = 1000, tell: Callable[[Outcome], None] = lambda _: None
) -> Replayed:
    return run(asyncio.wait_for(replay(each, ask, deadline, most=most, tell=tell), PATIENCE))


async def at_once(index: int) -> Reply:
    return Reply(OK, stitch=index, top1=0.5, flops=1e9)


def test_every_request_has_one_outcome_with_what_answered_it() -> None:
    told: list[Outcome] = []
    done = replayed(EVENLY, at_once, tell=told.append)
    assert told == list(done.outcomes)
    assert sorted(o.arrival for o in done.outcomes) == EVENLY.arrivals.tolist()
    assert sorted(o.stitch or 0 for o in done.outcomes) == list(range(100))
    assert {(o.status, o.top1, o.flops, o.deadline) for o in done.outcomes} == {(OK, 0.5, 1e9, 1.0)}
    assert len(done.lateness) == 100
    assert all(late >= 0 for late in done.lateness)


def test_no_request_waits_for_an_earlier_answer_and_each_counts_its_own_waiting() -> None:
    asked = asyncio.Event()

    async def stalled(index: int) -> Reply:
        if index == 99:
            asked.set()
        await asked.wait()  # a generator that waited for answers would never get here a second time
        return Reply(OK)

    done = replayed(EVENLY, stalled)
    for outcome in done.outcomes:
        assert outcome.latency is not None
        assert outcome.latency >= EVENLY.arrivals[-1] - outcome.arrival


def test_what_the_generator_loses_counts_as_latency_and_is_told() -> None:
    async def slow_to_send(index: int) -> Reply:
        if index == 0:
            ends = time.perf_counter() + 0.3
            while time.perf_counter() < ends:  # holds the generator's only thread
                pass
        return Reply(OK)

    done = replayed(EVENLY, slow_to_send)
    assert all((o.latency or 0) >= 0.29 - o.arrival for o in done.outcomes)
    assert done.late(99) >= 0.25
    assert "the generator was the bottleneck" in (done.bottleneck(deadline=1.0) or "")
    assert done.bottleneck(deadline=60.0) is None or done.late(99) > 6


def test_with_too_many_in_flight_a_request_is_not_sent_and_counts_as_failed() -> None:
    enough = asyncio.Event()
    refused: list[Outcome] = []

    def tell(outcome: Outcome) -> None:
        if outcome.status == NOT_SENT:
            refused.append(outcome)
        if len(refused) == 97:
            enough.set()

    async def stalled(_: int) -> Reply:
        await enough.wait()
        return Reply(OK)

    done = replayed(EVENLY, stalled, most=3, tell=tell)
    assert len(done.outcomes) == 100
    assert [o.arrival for o in refused] == EVENLY.arrivals[3:].tolist()
    assert all(o.latency is None for o in refused)
    assert len(done.lateness) == 3


@pytest.mark.parametrize("status", ["503", "timeout"])
def test_a_refusal_has_no_latency(status: str) -> None:
    async def refuse(_: int) -> Reply:
        return Reply(status)

    (outcome,) = replayed(trace(0.0), refuse).outcomes
    assert (outcome.latency, outcome.status) == (None, status)


def test_a_fault_in_the_generator_ends_the_replay() -> None:
    async def broken(_: int) -> Reply:
        raise RuntimeError("broken")

    with pytest.raises(ExceptionGroup) as group:
        replayed(EVENLY, broken)
    assert group.group_contains(RuntimeError, match="broken")


def test_a_replay_of_which_nothing_was_sent_was_not_late() -> None:
    assert Replayed((), ()).late(99) == 0
    assert Replayed((), ()).bottleneck(0.01) is None


def test_the_selector_hears_sockets_and_timers() -> None:
    async def both() -> tuple[bytes, float]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.read(1))
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"x")
            echoed = await reader.read()
            writer.close()
            await writer.wait_closed()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(0.0123)
        return echoed, loop.time() - began

    work: Awaitable[tuple[bytes, float]] = both()
    echoed, slept = run(asyncio.wait_for(work, PATIENCE))
    assert echoed == b"x"
    assert slept >= 0.0123


def test_the_selector_can_be_polled_and_waited_on() -> None:
    selector = PreciseSelector()
    assert selector.select(0) == selector.select(0.001) == []
    selector.close()
