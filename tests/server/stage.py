"""A running server whose engine waits for the test and whose clock the test moves on."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from conftest import Running, run

import stitching
from lookup_tables.costs import Way
from server.app import Beside, nothing
from server.engine import Engine, Image, Ranking
from server.service import Service
from server.settings import Settings


class Gated(Engine):
    """Runs a batch only while the gate is open; `entered` tells that one has begun."""

    gate: threading.Event
    entered: threading.Event
    batches: list[int]

    def run(self, images: Sequence[Image], stitches: Sequence[int], way: Way | None = None) -> list[Ranking]:
        self.batches.append(len(images))
        self.entered.set()
        assert self.gate.wait(60)
        return super().run(images, stitches, way)


class Wide(Gated):
    """May be asked from two threads at once."""

    @property
    def lanes(self) -> int:
        return 2


class Shifted:
    """The real clock, moved on by the test."""

    def __init__(self) -> None:
        self.by = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.by


class Stage:
    """A running server with a gated engine and a shifted clock."""

    def __init__(self, running: Running, engine: Gated, clock: Shifted, pool: ThreadPoolExecutor) -> None:
        self.running, self.engine, self.clock, self.pool = running, engine, clock, pool

    def post(self, body: bytes, query: str = "") -> "Callable[[], tuple[int, dict[str, str]]]":
        def ask() -> tuple[int, dict[str, str]]:
            with self.running.client() as client:
                response = client.post(f"/classify?{query}", content=body)
            return response.status_code, dict(response.headers)

        return self.pool.submit(ask).result

    def occupy(self, body: bytes) -> "Callable[[], tuple[int, dict[str, str]]]":
        """A request that is being run and does not end before the gate opens."""
        self.engine.gate.clear()
        self.engine.entered.clear()
        answer = self.post(body)
        assert self.engine.entered.wait(60)
        return answer

    def until(self, true: Callable[[], bool]) -> None:
        ends = time.monotonic() + 60
        while not true():
            assert time.monotonic() < ends

    def begin(self, part: bytes) -> socket.socket:
        """A client that has sent only this much of a body of 500 bytes."""
        client = socket.create_connection(("127.0.0.1", int(self.running.url.rpartition(":")[2])), timeout=60)
        client.sendall(
            b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 500\r\n\r\n" + part
        )
        return client

    def health(self, route: str) -> int:
        with self.running.client() as client:
            return client.get(f"/{route}").status_code

    def counted(self, status: int) -> float:
        name = "stitchserve_requests_total"
        value = self.running.service.metrics.registry.get_sample_value(
            name, {"route": "/classify", "status": str(status)}
        )
        return value or 0.0


def staged(kind: type[Gated], small: Settings, running: Running, beside: Beside = nothing) -> Iterator[Stage]:
    engine, clock = kind(stitching.load("digits"), running.service.engine.device), Shifted()
    engine.gate, engine.entered, engine.batches = threading.Event(), threading.Event(), []
    engine.gate.set()
    with ThreadPoolExecutor(4) as pool:
        for started in run(Service(small, engine, running.service.table, clock), beside):
            engine.batches.clear()
            yield Stage(started, engine, clock, pool)
            engine.gate.set()
