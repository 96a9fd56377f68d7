"""Whether the event loop interrupts the engine."""

import asyncio
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from conftest import Running, settings

from server.errors import Overloaded
from server.scheduling import give_way
from server.service import Service


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    give_way(True)
    if not hasattr(os, "SCHED_BATCH") or os.sched_getscheduler(0) != os.SCHED_BATCH:
        pytest.skip("the system does not let a thread choose")
    give_way(False)
    yield
    give_way(False)


async def until(policy: int) -> None:
    async with asyncio.timeout(60):
        while os.sched_getscheduler(0) != policy:
            await asyncio.sleep(0)


def refusing(service: Service) -> Iterator[Callable[[], object]]:
    yield partial(service.metrics.refuse, Overloaded("too many images"))
    yield partial(service.metrics.count_refusal, 503)  # too many connections
    yield partial(service.metrics.count_request, "/classify", 429, 0.001)


def test_the_event_loop_gives_way_while_nobody_is_refused(running: Running, cache: Path) -> None:
    async def scenario() -> int:
        service = Service(settings(cache), running.service.engine, running.service.table)
        await service.start()
        await until(os.SCHED_BATCH)
        decoding = await asyncio.wrap_future(service.decode_pool.submit(os.sched_getscheduler, 0))
        for refuse in refusing(service):
            refuse()
            await until(os.SCHED_OTHER)
            await until(os.SCHED_BATCH)
        await service.stop()
        return decoding

    assert asyncio.run(scenario()) == os.SCHED_OTHER, "threads that decode inherit nothing"


def test_behind_front_ends_it_does_not(running: Running, cache: Path) -> None:
    async def scenario() -> None:
        give_way(True)
        service = Service(settings(cache, frontends=2), running.service.engine, running.service.table)
        await service.start()
        await until(os.SCHED_OTHER)
        await service.stop()

    asyncio.run(scenario())
