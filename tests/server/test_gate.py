"""What is refused before the application: the load, and nothing else; over real HTTP with an engine that waits."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from weakref import ref

import pytest
from conftest import Running, settings
from fastapi import FastAPI, Request, Response
from stage import Gated, Stage, staged

from server.answering import DUE
from server.errors import BadRequest, DeadlinePassed, Overloaded, RateLimited, ServeError
from server.front import Front
from server.gate import Gate
from server.tenants import digest


@pytest.fixture
def full(cache: Path, running: Running, tmp_path: Path, sample: bytes) -> Iterator[Stage]:
    """A server whose only place is taken until the gate opens."""
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[[tenants]]\nname = "shop"\nkey_sha256 = "{digest("shopkey")}"\n')
    for stage in staged(Gated, settings(cache, max_queue=1, tenants=keys), running):
        answer = stage.occupy(sample)
        yield stage
        stage.engine.gate.set()
        assert answer()[0] == 200


def test_the_load_is_told_as_by_the_route_and_counted_once(full: Stage, sample: bytes) -> None:
    with full.running.client() as client:
        refused = client.post("/classify?budget=1s", content=sample, headers={"x-request-id": "mine"})
        assert (refused.status_code, refused.json()["type"]) == (503, "/problems/overloaded")
        assert refused.headers["content-type"] == "application/problem+json"
        assert (refused.headers["x-request-id"], int(refused.headers["retry-after"]) >= 1) == ("mine", True)
        metrics = client.get("/metrics").text
    assert full.counted(503) == 1
    assert 'refused_images_total{reason="full",stage="arrival"} 1.0' in metrics


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("budget=cheap", {}, 422),
        ("top_k=0", {}, 422),
        ("unheard_of=1", {}, 422),
        ("stitch=12345", {}, 422),
        ("budget=1us", {}, 422),
        ("", {"x-api-key": "nobody's"}, 401),
    ],
)
def test_what_else_is_wrong_is_still_told(
    full: Stage, sample: bytes, query: str, headers: dict[str, str], status: int
) -> None:
    with full.running.client() as client:
        assert client.post(f"/classify?{query}", content=sample, headers=headers).status_code == status


def test_a_tenant_within_its_share_comes_through(full: Stage, sample: bytes) -> None:
    with full.running.client() as client:
        mine = full.pool.submit(client.post, "/classify", content=sample, headers={"x-api-key": "shopkey"})
        full.until(lambda: full.running.service.limiter.inside == 2)
        full.engine.gate.set()
        assert mine.result().status_code == 200


def test_a_server_that_stops_says_so(full: Stage, sample: bytes) -> None:
    full.running.service.refusing = True
    with full.running.client() as client:
        told = client.post("/classify", content=sample).json()
    full.running.service.refusing = False
    assert told["detail"] == "the server is stopping; send the request to another replica"


def test_who_is_refused_for_the_load_does_not_pay(cache: Path, running: Running, sample: bytes) -> None:
    poor = settings(cache, max_queue=1, anonymous_rate=0.001, anonymous_burst=2)
    for stage in staged(Gated, poor, running):
        answer = stage.occupy(sample)
        with stage.running.client() as client:
            statuses = [client.post("/classify", content=sample).status_code for _ in range(3)]
            stage.engine.gate.set()
            assert answer()[0] == 200
            statuses += [client.post("/classify", content=sample).status_code for _ in range(2)]
        assert statuses == [503, 503, 503, 200, 429]


class Holding(Front):
    """Notes what may be held back until when."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.due: list[float] = []

    def held(self, due: float) -> float:
        self.due.append(due)
        return 1e-6


@pytest.mark.parametrize(
    ("error", "due"),
    [
        (Overloaded("too many"), [7.0]),
        (DeadlinePassed("too late"), [7.0]),
        (RateLimited("too often", retry_after=1, rate=1, burst=1), [7.0]),
        (BadRequest("no image"), []),
    ],
)
def test_what_the_doorman_leaves_to_it_is_held_back_too(error: ServeError, due: list[float]) -> None:
    class Upload:
        """A body."""

    bodies: list[ref[Upload]] = []
    kept: list[bool] = []

    async def classify(request: Request) -> Response:
        body = Upload()
        bodies.append(ref(body))
        request.scope["state"][DUE] = 7.0
        raise error

    async def refuse(*_: object) -> Response:
        kept.append(bodies[0]() is not None)
        return Response()

    async def send(message: object) -> None:
        sent.append(message)

    front, sent = Holding(), []  # type: ignore[var-annotated]
    gate = Gate(FastAPI(), classify, refuse, front)
    scope = {"type": "http", "path": "/classify", "method": "POST", "headers": [], "state": {}}
    asyncio.run(gate(scope, asyncio.sleep, send))  # type: ignore[arg-type]
    assert (front.due, len(sent)) == (due, 2)
    assert kept == [not due], "while it is held back nothing keeps the body"
