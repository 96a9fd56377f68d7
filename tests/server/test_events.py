"""`GET /events` over real HTTP: what it tells, to how many, and that it does not keep a server from stopping."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from conftest import Running, run, settings
from started import Process

from server.events import Happenings
from server.feed import MOST
from server.schemas import Happening
from server.service import Service


def told(lines: Iterator[str]) -> Iterator[Any]:
    """The data of an event stream's events."""
    for line in lines:
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def test_it_tells_what_status_tells_once_a_second(client: httpx.Client) -> None:
    with client.stream("GET", "/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["cache-control"] == "no-store"
        events = told(stream.iter_lines())
        history, first, second = next(events), next(events), next(events)
        status = client.get("/status").json()
    assert isinstance(history, list)
    assert first.keys() == set(Happening.model_fields)
    assert second["at"] > first["at"]
    assert second["level"] == status["level"]
    assert second["ready"] is True
    with client.stream("GET", "/events") as stream:
        assert next(told(stream.iter_lines()))[-1]["at"] >= second["at"], "who comes later is told of it"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_counts_what_came_since_the_reading_before(client: httpx.Client, running: Running, sample: bytes) -> None:
    clock = Clock()
    happenings = Happenings(running.service, clock)

    def reading(seconds: float) -> Happening:
        clock.now += seconds
        return Happening.model_validate_json(happenings.read())

    idle = reading(0)
    assert (idle.answered_per_second, idle.top1_served, idle.slo_met) == (0, None, None)
    for stitch in (1, 2):
        assert client.post("/classify", params={"stitch": stitch}, content=sample).status_code == 200
    assert client.post("/classify?deadline_ms=0.001&on_infeasible=nearest", content=sample).status_code == 504
    busy = reading(2)
    table = {each["id"]: each["top1"] for each in client.get("/stitches").json()["stitches"]}
    assert (busy.answered_per_second, busy.refused_per_second, busy.slo_met) == (1.0, 0.5, 100.0)
    assert busy.top1_served == round((table[1] + table[2]) / 2, 4)
    assert client.post("/classify", content=sample).status_code == 200
    assert reading(3600).answered_per_second == 0, "what came in an hour without anybody looking says nothing of now"


def test_there_is_room_for_so_many_and_place_again_when_one_leaves(cache: Path, running: Running) -> None:
    for served in run(Service(settings(cache), running.service.engine, running.service.table)):
        with served.client() as client:
            streams = [client.stream("GET", "/events") for _ in range(MOST)]
            reading = [stream.__enter__().iter_lines() for stream in streams]
            assert [next(lines) for lines in reading] == ["retry: 3000"] * MOST
            refused = client.get("/events")
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "10"
            assert client.get("/status").status_code == 200
            for stream in streams:
                stream.__exit__(None, None, None)
            for _ in range(1000):
                with client.stream("GET", "/events") as again:
                    if again.status_code == 200:
                        break
            assert again.status_code == 200


def test_a_server_that_is_told_to_stop_does_not_wait_for_who_looks(start: Callable[..., Process]) -> None:
    process = start("--drain-timeout-s", "300")
    with httpx.stream("GET", f"{process.url}/events", timeout=60) as stream:
        events = stream.iter_lines()
        next(events)
        process.send(signal.SIGTERM)
        for _ in events:
            pass  # until the server ends the stream, whole
    assert process.exit_status() == 0
