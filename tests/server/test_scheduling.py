"""Whether the event loop interrupts the engine."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Running, settings

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


async def policies(service: Service) -> tuple[int, int]:
    """Of the event loop, and of a thread that decodes."""
    await service.start()
    decoding = await asyncio.wrap_future(service.decode_pool.submit(os.sched_getscheduler, 0))
    policy = os.sched_getscheduler(0)
    await service.stop()
    return policy, decoding


def test_the_event_loop_gives_way_and_threads_that_decode_do_not(running: Running, cache: Path) -> None:
    service = Service(settings(cache), running.service.engine, running.service.table)
    assert asyncio.run(policies(service)) == (os.SCHED_BATCH, os.SCHED_OTHER)


def test_behind_front_ends_it_does_not(running: Running, cache: Path) -> None:
    service = Service(settings(cache, frontends=2), running.service.engine, running.service.table)
    assert asyncio.run(policies(service)) == (os.SCHED_OTHER, os.SCHED_OTHER)
