"""The client over real sockets: what it sends, and what every way of failing becomes."""

import asyncio
import json
import resource
from collections.abc import Awaitable, Callable
from dataclasses import replace

import aiohttp
import numpy as np
import pytest
from pydantic import BaseModel
from tiny_server import Answer, Received, serving
from yarl import URL

from server.replay.bench import Replayed, Reply, replay, run
from server.replay.client import (
    Body,
    Target,
    address,
    allow_connections,
    asking,
    check,
    fetch,
    read_classification,
    session,
)
from server.replay.report import OK, summarise
from server.replay.traces import Trace

PATIENCE = 60
CLASSIFIED = json.dumps({"stitch": {"id": 7, "name": "a", "flops": 2_000_000, "top1": 75.5}, "reason": "x"}).encode()
BODIES = [Body(b"one", "image/jpeg"), Body(b"two!", "image/png")]
TARGET = Target(URL("http://unset"), BODIES, read_classification, timeout=PATIENCE)

Work = Callable[[aiohttp.ClientSession, URL], Awaitable[object]]


def against(answer: Answer, work: Work) -> object:
    """What `work` gives with a client and the address of a server that answers so."""

    async def both() -> object:
        async with serving(answer) as url, session() as client:
            return await work(client, url)

    return run(asyncio.wait_for(both(), PATIENCE))


def reply_to(answer: Answer, timeout: float = PATIENCE) -> object:
    return against(answer, lambda client, url: asking(client, replace(TARGET, url=url, timeout=timeout))(0))


async def classified(_: Received) -> tuple[int, bytes]:
    return 200, CLASSIFIED


def test_bodies_are_sent_in_turn_with_their_types_and_the_headers() -> None:
    received: list[Received] = []

    async def note(request: Received) -> tuple[int, bytes]:
        received.append(request)
        return 200, CLASSIFIED

    async def three(client: aiohttp.ClientSession, url: URL) -> list[Reply]:
        ask = asking(client, replace(TARGET, url=url / "classify" % {"budget": "2GFLOPs,15ms"}, headers={"X-Key": "k"}))
        return [await ask(index) for index in range(3)]

    assert against(note, three) == [Reply(OK, 7, 0.755, 2e6)] * 3
    assert [(r.body, r.headers["content-type"]) for r in received] == [
        (b"one", "image/jpeg"),
        (b"two!", "image/png"),
        (b"one", "image/jpeg"),
    ]
    assert {r.line for r in received} <= {
        "POST /classify?budget=2GFLOPs,15ms HTTP/1.1",
        "POST /classify?budget=2GFLOPs%2C15ms HTTP/1.1",
    }
    assert {r.headers["x-key"] for r in received} == {"k"}


@pytest.mark.parametrize("status", [400, 413, 503, 504])
def test_a_refusal_is_a_reply_with_its_status(status: int) -> None:
    async def refuse(_: Received) -> tuple[int, bytes]:
        return status, b"no"

    assert reply_to(refuse) == Reply(str(status))


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"stitch": null}', b'{"stitch": {"id": "x", "flops": 1, "top1": 1}}', b"\xff"]
)
def test_an_answer_that_is_no_classification_is_none(content: bytes) -> None:
    assert read_classification(content) == Reply("unreadable")


def test_a_stitch_without_top1_has_none() -> None:
    assert read_classification(b'{"stitch": {"id": 3, "flops": 5, "top1": null}}') == Reply(OK, 3, None, 5.0)


def test_a_server_that_hangs_up_is_a_reply() -> None:
    async def hang_up(_: Received) -> None:
        return None

    assert reply_to(hang_up) == Reply("disconnected")


def test_a_server_that_never_answers_is_given_up() -> None:
    async def never(_: Received) -> None:
        await asyncio.Event().wait()

    assert reply_to(never, timeout=0.05) == Reply("timeout")


async def _gone() -> URL:
    async with serving(classified) as url:
        return url


def test_a_server_that_is_not_there_is_a_reply_and_fails_the_check() -> None:
    async def both() -> Reply:
        target = replace(TARGET, url=await _gone())
        async with session() as client:
            with pytest.raises(ValueError, match="does not answer: Cannot connect"):
                await check(client, target)
            return await asking(client, target)(0)

    assert run(both()) == Reply("no connection")


def test_requests_that_meet_a_stalled_server_count_their_waiting() -> None:
    """Coordinated omission: a client that waited for the first answer would report one slow request, not a hundred."""
    trace = Trace("made", np.arange(100) / 1000, seconds=0.1)
    received = 0
    everything = asyncio.Event()

    async def stalled(_: Received) -> tuple[int, bytes]:
        nonlocal received
        received += 1
        if received == 100:
            everything.set()
        await everything.wait()
        return 200, CLASSIFIED

    async def bench(client: aiohttp.ClientSession, url: URL) -> Replayed:
        return await replay(trace, asking(client, replace(TARGET, url=url)), deadline=0.02)

    done = against(stalled, bench)
    assert isinstance(done, Replayed)
    assert all((o.latency or 0) >= trace.arrivals[-1] - o.arrival for o in done.outcomes)
    figures = summarise(done.outcomes, trace.seconds)
    assert figures.unanswered == {}
    assert figures.late >= 79  # those due more than 20 ms before the last one
    assert (figures.p50 or 0) >= 0.049


@pytest.mark.parametrize("status", [200, 429, 500, 503])
def test_a_server_that_may_be_busy_passes_the_check(status: int) -> None:
    async def answer(_: Received) -> tuple[int, bytes]:
        return status, b"busy"

    against(answer, lambda client, url: check(client, replace(TARGET, url=url)))


def test_a_request_that_the_server_finds_fault_with_fails_the_check() -> None:
    async def answer(_: Received) -> tuple[int, bytes]:
        return 415, b"send a JPEG\n" + b"x" * 10_000

    with pytest.raises(ValueError, match="refuses the request with 415: 'send a JPEG") as refusal:
        against(answer, lambda client, url: check(client, replace(TARGET, url=url)))
    assert len(str(refusal.value)) < 500


class Level(BaseModel):
    level: int


@pytest.mark.parametrize(("status", "content"), [(404, b"{}"), (200, b"{}"), (200, b"<html>")])
def test_what_is_not_there_cannot_be_fetched(status: int, content: bytes) -> None:
    async def answer(_: Received) -> tuple[int, bytes]:
        return status, content

    with pytest.raises(ValueError, match=r"/status: .* is it stitchserve") as refusal:
        against(answer, lambda client, url: fetch(client, url / "status", Level))
    assert "\n" not in str(refusal.value)


def test_what_is_there_is_fetched() -> None:
    async def answer(request: Received) -> tuple[int, bytes]:
        return 200, b'{"level": 3, "more": 4}' if request.line == "GET /status HTTP/1.1" else b""

    assert against(answer, lambda client, url: fetch(client, url / "status", Level)) == Level(level=3)


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://x", "http://", "/classify"])
def test_an_address_is_an_http_url(url: str) -> None:
    with pytest.raises(ValueError, match="give http://host:port"):
        address(url)


def test_the_limit_on_open_files_is_raised_as_far_as_it_may_be() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
        allow_connections(10)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(soft, 256)
        allow_connections(300)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 300
        if hard != resource.RLIM_INFINITY:
            with pytest.raises(ValueError, match="ulimit -n"):
                allow_connections(hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
