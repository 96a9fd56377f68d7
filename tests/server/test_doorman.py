"""Who is refused before the application, on raw connections: as by the route, in order, and nobody else."""

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from conftest import Running, settings
from stage import Gated, Stage, staged
from test_channel import Wire
from test_connection import answer, connect, everything
from uvicorn.server import ServerState

from server.app import application
from server.body import Bodies, Body
from server.bounds import MOST_SKIPPED
from server.budget import Budget
from server.connection import Connection
from server.controller import Controller
from server.doorman import doorman
from server.front import AT_ONCE, MOST_HELD, unseen
from server.refused import Refused
from server.service import Service

LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = [(b"content-type", b"image/jpeg"), (b"x-request-id", b"mine")]


@pytest.fixture
def besieged(cache: Path, running: Running, sample: bytes) -> Iterator[Stage]:
    """A server whose only place is taken until the gate opens, and which has refused somebody since."""
    for stage in staged(Gated, settings(cache, max_queue=1), running):
        occupant = stage.occupy(sample)
        assert stage.post(sample)()[0] == 503
        yield stage
        stage.engine.gate.set()
        assert occupant()[0] == 200


@pytest.fixture
def client(besieged: Stage) -> Iterator[socket.socket]:
    with connect(besieged.running) as connected:
        yield connected


def post(body: bytes, *headers: str, query: str = "") -> bytes:
    lines = [f"POST /classify{query} HTTP/1.1", "Host: x", "Content-Type: image/jpeg", "X-Request-Id: mine", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


class Counted(Bodies):
    """Counts the requests whose bodies the application is ready to take."""

    asked = 0

    def hold(self) -> Body:
        self.asked += 1
        return super().hold()


def test_it_says_what_the_route_says_and_keeps_the_connection(
    besieged: Stage, client: socket.socket, sample: bytes
) -> None:
    before, bodies = besieged.counted(503), Counted(1_000_000)
    besieged.running.service.bodies = bodies
    client.sendall(post(sample))
    status, headers, problem = answer(client)
    assert bodies.asked == 0
    client.sendall(post(sample, "Expect: 100-continue"))
    same_status, same_headers, same = answer(client)
    assert bodies.asked == 1
    assert (status, problem) == (same_status, same) == (503, same)
    assert {name: value for name, value in headers.items() if name != "date"} == {
        name: value for name, value in same_headers.items() if name != "date"
    }
    assert besieged.counted(503) == before + 2
    assert besieged.running.service.metrics.totals().refused == 3


def test_answers_keep_the_order_of_their_requests(besieged: Stage, client: socket.socket, sample: bytes) -> None:
    client.sendall(post(sample) + LIVE + post(sample) + post(b"") + LIVE)
    assert [answer(client)[0] for _ in range(5)] == [503, 200, 503, 503, 200]


def test_many_requests_at_once_are_no_way_to_hold_the_event_loop(
    besieged: Stage, client: socket.socket, sample: bytes
) -> None:
    client.sendall(post(b"") * 1000)
    told = everything(client)
    assert told.count(b"HTTP/1.1 503") <= 2
    assert b"more than 32 requests" in told


def test_a_client_that_does_not_take_its_answers_gets_no_more_of_them() -> None:
    async def scenario() -> None:
        asked = []

        def refuse(url: bytes, *_: object) -> Refused:
            asked.append(url)
            return Refused(503, [], b"{}")

        async def app(scope: object, receive: object, send: object) -> None:
            await asyncio.Event().wait()

        config = uvicorn.Config(app, interface="asgi3", log_config=None, lifespan="off")
        config.load()
        connection = Connection(config, ServerState(), {}, most=9, patience=60, doorman=refuse)
        connection.connection_made(Wire())
        connection.data_received(post(b"", query="?first"))
        connection.pause_writing()
        connection.data_received(post(b"", query="?second"))
        connection.connection_lost(None)
        assert asked == [b"/classify?first"]

    asyncio.run(scenario())


@pytest.mark.parametrize("go_on", ["stop", "ask", "wait"])
def test_a_refusal_that_is_held_back_comes_first_and_is_not_lost(go_on: str) -> None:
    async def scenario() -> None:
        async def app(scope: object, receive: object, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})

        def refuse(*_: object) -> Refused:
            return Refused(503, [], b"{}", held=3600)

        config = uvicorn.Config(app, interface="asgi3", log_config=None, lifespan="off")
        config.load()
        connection, wire = Connection(config, ServerState(), {}, most=9, patience=1e-6, doorman=refuse), Wire()
        connection.connection_made(wire)
        whole = post(b"body")
        connection.data_received(whole[:-2])
        assert wire.written == b""
        if go_on == "stop":
            connection.shutdown()
            assert wire.written.startswith(b"HTTP/1.1 503 ")
        elif go_on == "wait":  # longer than the head of the next may take
            async with asyncio.timeout(60):
                while not wire.written:
                    await asyncio.sleep(0)
            assert wire.written.startswith(b"HTTP/1.1 503 ")
        else:
            connection.data_received(whole[-2:] + LIVE)
            await asyncio.gather(*connection.tasks)
            await asyncio.sleep(0)
            assert [part[:3] for part in wire.written.split(b"HTTP/1.1 ")] == [b"", b"503", b"200"]
        connection.connection_lost(None)

    asyncio.run(scenario())


def test_what_comes_with_one_that_is_refused_is_not_cut_off_as_idle() -> None:
    async def scenario() -> None:
        async def app(scope: object, receive: object, send: object) -> None:
            await asyncio.Event().wait()

        config = uvicorn.Config(app, interface="asgi3", log_config=None, lifespan="off")
        config.load()
        refused = Refused(503, [], b"{}")
        connection = Connection(config, ServerState(), {}, most=9, patience=60, doorman=lambda *_: refused)
        connection.connection_made(Wire())
        connection.data_received(post(b""))
        assert connection.timeout_keep_alive_task
        connection.data_received(post(b"") + LIVE)
        assert connection.timeout_keep_alive_task is None
        connection.connection_lost(None)

    asyncio.run(scenario())


def test_a_body_may_come_after_its_refusal(besieged: Stage, client: socket.socket) -> None:
    whole = post(b"x" * 1000)
    client.sendall(whole[:-900])
    assert answer(client)[0] == 503
    client.sendall(whole[-900:] + LIVE)
    assert answer(client)[0] == 200


@pytest.mark.parametrize(
    "lines",
    [
        ["POST /classify HTTP/1.1", f"Content-Length: {MOST_SKIPPED + 1}"],
        ["POST /classify HTTP/1.1", "Content-Length: 0", "Connection: close"],
        ["POST /classify HTTP/1.0", "Content-Length: 0", "Connection: keep-alive"],
    ],
)
def test_a_connection_that_is_not_to_go_on_ends(besieged: Stage, client: socket.socket, lines: list[str]) -> None:
    client.sendall("\r\n".join([*lines, "Host: x", "", ""]).encode())
    status, said, _ = answer(client)
    assert (status, said["connection"]) == (503, "close")
    assert everything(client) == b""


@pytest.mark.parametrize("query", ["?budget=cheap", "?stitch=12345", "?budget=1us", "?deadline_ms=0.000001"])
def test_what_else_is_wrong_is_the_routes_to_say(client: socket.socket, sample: bytes, query: str) -> None:
    client.sendall(post(sample, query=query))
    assert answer(client)[0] == 422


def test_another_path_passes(client: socket.socket, sample: bytes) -> None:
    client.sendall(post(sample).replace(b"/classify", b"/clasify"))
    assert answer(client)[0] == 404


def lonely(cache: Path, running: Running, clock: Callable[[], float] = time.monotonic, **changes: object) -> Service:
    """A service that does not run, and has refused somebody."""
    service = Service(settings(cache, **changes), running.service.engine, running.service.table, clock)
    service.controller.turn_away()
    return service


def test_while_nobody_is_refused_nobody_is_looked_at(cache: Path, running: Running) -> None:
    service = lonely(cache, running, max_queue=1)
    service.limiter.enter(service.controller.allow(Budget()))
    refuse = doorman(application(service))
    refused = refuse(b"/classify", HEAD, 0.0)
    assert refused
    assert (refused.status, dict(refused.headers)[b"x-request-id"]) == (503, b"mine")
    service.controller = Controller(service.table, max_batch=8, slo=60)
    assert refuse(b"/classify", HEAD, 0.0) is None


def test_beyond_so_many_refusals_are_held_back_but_not_beyond_their_deadlines(cache: Path, running: Running) -> None:
    service = lonely(cache, running, lambda: 1000.0, max_queue=1)
    service.limiter.enter(service.controller.allow(Budget()))
    refuse, every = doorman(application(service)), []

    def held(query: bytes = b"", waited: float = 0.0) -> float:
        refused = refuse(b"/classify" + query, HEAD, waited)
        assert refused
        every.append(refused.held)
        return refused.held

    burst = int(AT_ONCE.burst)
    assert [held() for _ in range(burst)] == [0.0] * burst
    assert [held() for _ in range(3)] == pytest.approx([each / AT_ONCE.per_second for each in (1, 2, 3)])
    assert max(held() for _ in range(5000)) == MOST_HELD
    assert held(b"?deadline_ms=300", waited=0.1) == pytest.approx(0.2 - unseen(0.2))
    assert held(b"?deadline_ms=300", waited=0.4) == 0.0, "whose time is over is told so"
    told = service.metrics.registry.get_sample_value("stitchserve_request_seconds_sum", {"route": "/classify"})
    assert told == pytest.approx(sum(every)), "an answer is not there before it is sent"


def test_who_waited_too_long_to_be_heard_is_told_so(cache: Path, running: Running) -> None:
    refused = doorman(application(lonely(cache, running, slo_ms=1000)))(b"/classify?top_k=1", HEAD, 2.0)
    assert refused
    assert (refused.status, json.loads(refused.body)["stage"]) == (504, "receive")


def test_those_who_come_in_one_moment_are_not_all_let_in(cache: Path, running: Running) -> None:
    service = lonely(cache, running, slo_ms=1000, max_queue=100_000)
    refuse = doorman(application(service))
    passed = sum(refuse(b"/classify", HEAD, 0.0) is None for _ in range(5000))
    assert 0 < passed == service.front.coming < 5000
    assert service.controller.costs.drain(passed * service.controller.costs.cheapest) <= 1


@pytest.mark.parametrize("seen", [{"access_log": True}, {"cors_origin": ["https://shop.example"]}])
def test_nobody_stands_there_where_others_are_to_see_every_request(
    cache: Path, running: Running, seen: dict[str, Any]
) -> None:
    service = lonely(cache, running, max_queue=1, **seen)
    service.limiter.enter(service.controller.allow(Budget()))
    assert doorman(application(service))(b"/classify", HEAD, 0.0) is None
