"""Told to stop before clients were let in; and what begins with the start and goes wrong later."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Running, run, settings

from server.app import application
from server.engine import Engine
from server.frontends import FrontEnds
from server.listening import bound
from server.running import serve_behind
from server.service import Service


def test_those_that_let_nobody_in_yet_go_when_they_are_told(running: Running, cache: Path) -> None:
    service = Service(settings(cache), running.service.engine, running.service.table)

    async def live(sockets: list[socket.socket]) -> int:
        fronts = FrontEnds(application(service), service, sockets, 2)
        living = asyncio.create_task(fronts.run())
        while len(service.helpers) < 2:
            await asyncio.sleep(0.01)
        fronts.stop()
        await asyncio.wait_for(living, 60)
        return fronts.deaths

    with bound("127.0.0.1", 0) as sockets:
        assert asyncio.run(live(sockets)) == 0
    assert not service.helpers


class Told(Engine):
    """Is told to stop while it warms up."""

    service: Service

    def warm_up(self, *_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        while not self.service.refusing:
            time.sleep(0.01)


def test_told_to_stop_while_it_starts_it_ends_as_ever(running: Running, cache: Path) -> None:
    engine = Told(running.service.engine.model, running.service.engine.device, dtype="float32")
    engine.service = Service(settings(cache), engine, running.service.table)
    with bound("127.0.0.1", 0) as sockets:
        asyncio.run(serve_behind(application(engine.service), sockets, 1))
    assert not engine.service.helpers


class Failing(Engine):
    """Cannot do what it has to do when it is quiet."""

    def recordings(self, _: Sequence[int]) -> Iterator[Callable[[], bool]]:
        raise RuntimeError("no such graph")
        yield


def test_recording_that_fails_is_told_and_harms_nobody(
    running: Running, cache: Path, sample: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Failing(running.service.engine.model, running.service.engine.device, dtype="float32")
    for served in run(Service(settings(cache), engine, running.service.table)):
        with served.client() as client:
            assert client.post("/classify", content=sample).status_code == 200
            assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
    assert "no more is recorded" in caplog.text
    assert "no such graph" in caplog.text
