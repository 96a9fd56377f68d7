"""What HAProxy's agent check is told."""

import asyncio
from pathlib import Path

import pytest
from conftest import Running, settings

from server.agent import answering, state
from server.budget import Budget
from server.listening import bound
from server.service import Service


@pytest.fixture
def service(running: Running, cache: Path) -> Service:
    return Service(settings(cache), running.service.engine, running.service.table)


def slow_down(service: Service, factor: float) -> None:
    """Batches have taken that many times what the table says."""
    controller = service.controller
    allowed = controller.allow(Budget())
    for _ in range(300):
        _, plan = service.explain(allowed, 60.0)
        controller.observe(plan, plan.predicted * factor)


def test_a_replica_that_is_as_fast_as_profiled_gets_its_full_share(service: Service) -> None:
    slow_down(service, 0.5)
    assert state(service) == "ready up 100%"


def test_a_replica_that_is_slowed_down_gets_less(service: Service) -> None:
    slow_down(service, 4.0)
    assert state(service) in {f"ready up {percent}%" for percent in range(20, 31)}


def test_a_replica_that_stops_gets_nothing_new(service: Service) -> None:
    service.draining = True
    assert state(service) == "drain"


def test_a_replica_whose_batches_fail_is_down(service: Service) -> None:
    service.batcher.failed_in_a_row, service.batcher.failed_at = 100, service.clock()
    assert state(service) == "down"


def test_whoever_connects_is_told_one_line(service: Service) -> None:
    async def ask() -> bytes:
        with bound("127.0.0.1", 0) as sockets:
            async with answering(sockets, service):
                reader, writer = await asyncio.open_connection(*sockets[0].getsockname())
                told = await reader.read()
                writer.close()
                return told

    assert asyncio.run(ask()) == b"ready up 100%\n"
