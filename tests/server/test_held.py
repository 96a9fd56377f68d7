"""Refusals for the load, or for asking too often, are held back, on whichever route, and keep nothing meanwhile."""

import asyncio
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from weakref import ref

import pytest
from conftest import Running, run, settings
from stage import Gated, staged

from server.errors import BadRequest, DeadlinePassed, InternalError, Overloaded, RateLimited, ServeError
from server.front import Front
from server.service import Service


class Holding(Front):
    """Notes until when refusals may be held back."""

    def __init__(self, look: Callable[[], object] = lambda: None) -> None:
        super().__init__(lambda: 0.0)
        self.due: list[float] = []
        self._look = look

    def held(self, due: float) -> float:
        self.due.append(due)
        self._look()
        return 1e-6


class Upload:
    """A body."""


OFTEN = RateLimited("too often", retry_after=1, rate=1, burst=1)


@pytest.mark.parametrize("error", [Overloaded("too many"), DeadlinePassed("too late"), OFTEN])
def test_what_is_held_back_keeps_no_body(error: ServeError) -> None:
    bodies: list[ref[Upload]] = []

    def refuse() -> None:
        body = Upload()
        bodies.append(ref(body))
        try:
            raise ValueError(body)
        except ValueError:
            raise error from None

    front = Holding(lambda: kept.append(bodies[0]() is not None))
    kept: list[bool] = []
    with pytest.raises(type(error)) as caught:
        refuse()
    del caught
    asyncio.run(front.hold(error, 7.0))
    assert (front.due, kept) == ([7.0], [False])


@pytest.mark.parametrize("error", [BadRequest("no image"), InternalError("broken")])
def test_what_is_no_refusal_for_the_load_leaves_at_once(error: ServeError) -> None:
    front = Holding()
    asyncio.run(front.hold(error, 7.0))
    assert not front.due


@pytest.mark.parametrize(("query", "limit"), [("", 60.0), ("?deadline_ms=7000", 7.0)])
@pytest.mark.parametrize("options", [{"min_memory_bytes": 2**60}, {"anonymous_rate": 0.001, "anonymous_burst": 1}])
def test_an_image_has_until_its_deadline(
    query: str, limit: float, options: dict[str, float], cache: Path, running: Running
) -> None:
    service = Service(settings(cache, slo_ms=60_000, **options), running.service.engine, running.service.table)
    service.front = front = Holding()
    for served in run(service):
        with served.client() as client:
            client.get("/explain")  # which has what may be had at once
            before = time.monotonic()
            assert client.post("/classify" + query, content=b"x").status_code in {429, 503}
            # The kernel tells in steps of some milliseconds when a request came.
            assert before + limit - 1.0 < front.due[0] <= time.monotonic() + limit


BATCH, INFER = "/classify/batch", "/v2/models/auto/infer"


@pytest.mark.parametrize("path", [BATCH, INFER])
def test_who_may_say_a_deadline_in_the_body_is_told_at_once_before_that_is_read(
    path: str, cache: Path, running: Running
) -> None:
    service = Service(settings(cache, min_memory_bytes=2**60), running.service.engine, running.service.table)
    service.front = front = Holding()
    for served in run(service):
        with served.client() as client:
            assert client.post(path, content=b"x").status_code == 503
            assert front.due == [0.0]


def test_a_deadline_in_the_body_counts_once_that_is_read(cache: Path, running: Running, sample: bytes) -> None:
    image = {"name": "image", "datatype": "BYTES", "shape": [2], "data": [b64encode(sample).decode()] * 2}
    files = [("image", sample)] * 2
    for stage in staged(Gated, settings(cache, max_queue=2), running):
        first = stage.occupy(sample)
        stage.running.service.front = front = Holding()
        with stage.running.client() as client:
            for path, limit, body in (
                (INFER, 7.0, {"json": {"inputs": [image], "parameters": {"timeout": 7_000_000}}}),
                (INFER, 60.0, {"json": {"inputs": [image]}}),
                (BATCH, 7.0, {"files": files, "data": {"budget": ["9000ms", "7000ms"]}}),
                (BATCH + "?deadline_ms=7000", 7.0, {"files": files}),
                (BATCH, 60.0, {"files": files}),
            ):
                before = time.monotonic()
                refused = client.post(path, **body)
                assert refused.status_code == 503, refused.text
                assert before + limit - 1.0 < front.due[-1] <= time.monotonic() + limit, path
        stage.engine.gate.set()
        assert first()[0] == 200
