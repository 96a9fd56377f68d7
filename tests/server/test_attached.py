"""What the two ends of a front end keep, and give back."""

import asyncio
import json
import socket

import pytest
from conftest import Running
from fastapi import FastAPI

from server.attached import Attached
from server.channel import Channel, Kind
from server.frontend import Exchange
from server.shared import Shared
from server.stages import Stages


def test_a_picture_that_comes_as_its_request_is_given_up_gives_its_place_back(running: Running) -> None:
    class Told(Channel):
        def __init__(self) -> None:
            super().__init__(lambda *_: None, lambda: None)
            self.frames: list[tuple[Kind, int]] = []

        @property
        def closed(self) -> bool:
            return False

        def send(self, kind: Kind, number: int, *parts: bytes) -> None:
            self.frames.append((kind, number))

    async def scenario() -> list[tuple[Kind, int]]:
        service, (ours, theirs) = running.service, socket.socketpair()
        front = Attached(FastAPI(), service, Shared.create(64, 3), ours)
        front.channel = told = Told()
        stages = Stages(service.clock, service.clock(), 60.0)
        reading = asyncio.create_task(front.read(b"a file", 0, stages))
        await asyncio.sleep(0)
        said = {"began": service.clock(), "place": 2}
        front.take(Kind.READ, 1, json.dumps(said).encode())
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        ours.close()
        theirs.close()
        return told.frames

    assert asyncio.run(scenario()) == [(Kind.DECODE, 1), (Kind.FREE, 2)]


def test_of_a_body_no_more_is_kept_than_an_image_may_have() -> None:
    exchange = Exchange(room=1, most=10)
    for kept in ([b"12345"], [b"12345", b"67890"], [], []):
        exchange.keep(b"67890" if exchange.body else b"12345")
        assert exchange.body == kept
