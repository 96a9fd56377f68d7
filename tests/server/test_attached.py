"""What the two ends of a front end keep, and give back."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from attaching import Told, head, started
from conftest import Running
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from server.app import Accounting
from server.attached import Attached
from server.channel import PART, READ, Kind
from server.exchange import Exchange, is_image
from server.refused import PROBLEM, Header, Refused
from server.stages import Stages


def test_a_picture_that_comes_as_its_request_is_given_up_gives_its_place_back(
    running: Running, attach: Callable[..., tuple[Attached, Told]]
) -> None:
    async def scenario() -> list[tuple[Kind, int]]:
        service, (front, told) = running.service, attach(FastAPI())
        stages = Stages(service.clock, service.clock(), 60.0)
        reading = asyncio.create_task(front.read(b"a file", 0, stages))
        await asyncio.sleep(0)
        front.take(Kind.READ, 1, READ.pack(service.clock(), 2))
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        return told.frames

    assert asyncio.run(scenario()) == [(Kind.DECODE, 1), (Kind.FREE, 2)]


def test_whom_the_doorman_refuses_is_answered_without_the_application(
    attach: Callable[..., tuple[Attached, Told]],
) -> None:
    asked: list[tuple[bytes, Sequence[Header], float]] = []

    def doorman(*request: Any) -> Refused:
        asked.append(request)
        return Refused(503, [(b"retry-after", b"7")], b"{}")

    front, told = attach(FastAPI(), doorman=doorman)  # which no loop runs
    front.take(Kind.OPEN, 4, head())
    front.take(Kind.BODY, 4, b"\0body")
    assert told.frames == [(Kind.START, 4), (Kind.DATA, 4)]
    status, headers = started(told.said[0])
    assert (status, told.said[1]) == (503, b"\0{}")
    assert headers == [
        (b"retry-after", b"7"), (b"content-type", PROBLEM.encode()), (b"content-length", b"2")
    ]  # fmt: skip
    [(url, given, waiting)] = asked
    assert (url, given) == (b"/classify?budget=1", [(b"x-request-id", b"mine")])
    assert 1.0 <= waiting < 60


def test_a_refusal_may_be_held_back(attach: Callable[..., tuple[Attached, Told]]) -> None:
    async def scenario() -> list[tuple[Kind, int]]:
        front, told = attach(FastAPI(), doorman=lambda *_: Refused(503, [], b"{}", held=1e-6))
        front.take(Kind.OPEN, 4, head())
        assert told.frames == []
        async with asyncio.timeout(60):
            while not told.frames:
                await asyncio.sleep(0)
        return told.frames

    assert asyncio.run(scenario()) == [(Kind.START, 4), (Kind.DATA, 4)]


@pytest.mark.parametrize("told", [{"method": "GET"}, {"asks": True}])
def test_the_doorman_is_not_asked_of_others(attach: Callable[..., tuple[Attached, Told]], told: dict[str, Any]) -> None:
    def doorman(*_: Any) -> Refused:
        raise AssertionError

    async def scenario() -> None:
        front, _ = attach(FastAPI(), doorman=doorman)
        front.take(Kind.OPEN, 4, head(**told))

    asyncio.run(scenario())


def test_a_body_that_is_held_is_brought_to_whoever_wants_its_bytes(
    attach: Callable[..., tuple[Attached, Told]],
) -> None:
    received: list[bytes] = []

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        more = True
        while more:
            message = await receive()
            received.append(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def scenario() -> list[tuple[Kind, int]]:
        front, told = attach(app)
        front.take(Kind.OPEN, 4, head())
        front.take(Kind.HELD, 4, PART.pack(True, 3))
        while (Kind.BRING, 4) not in told.frames:
            await asyncio.sleep(0)
        front.take(Kind.HELD, 4, PART.pack(True, 2))  # on its way when it was wanted
        front.take(Kind.BODY, 4, b"\1abcde")
        front.take(Kind.BODY, 4, b"\0fg")
        while front.open:
            await asyncio.sleep(0)
        return told.frames

    frames = asyncio.run(scenario())
    assert received == [b"abcde", b"fg"]
    assert frames == [(Kind.BRING, 4), (Kind.MORE, 4), (Kind.START, 4), (Kind.DATA, 4)]


def test_whether_a_connection_goes_on_is_for_the_front_end_to_say(
    running: Running, attach: Callable[..., tuple[Attached, Told]]
) -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def scenario() -> list[Header]:
        front, told = attach(Accounting(app, running.service.metrics))
        front.take(Kind.OPEN, 4, head())  # and the body is still on its way from there
        while front.open:
            await asyncio.sleep(0)
        return started(told.said[0])[1]

    assert [name for name, _ in asyncio.run(scenario())] == [b"x-request-id"]


def test_of_a_client_that_has_left_nothing_is_read(attach: Callable[..., tuple[Attached, Told]]) -> None:
    received: list[str] = []

    async def app(_: Scope, receive: Receive, __: Send) -> None:
        received.append((await receive())["type"])

    async def scenario() -> None:
        front, _ = attach(app)
        front.take(Kind.OPEN, 4, head())
        front.take(Kind.BODY, 4, b"\0whole")
        front.take(Kind.GONE, 4, b"")
        while front.open:
            await asyncio.sleep(0)

    asyncio.run(scenario())
    assert received == ["http.disconnect"]


def test_an_answer_that_breaks_off_is_said_to(attach: Callable[..., tuple[Attached, Told]]) -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    async def scenario() -> list[tuple[Kind, int]]:
        front, told = attach(app)
        front.take(Kind.OPEN, 4, head())
        while front.open:
            await asyncio.sleep(0)
        return told.frames

    assert asyncio.run(scenario()) == [(Kind.START, 4), (Kind.DATA, 4), (Kind.CUT, 4)]


def test_only_an_image_of_known_size_is_held() -> None:
    image, length = {b"content-type": b"image/png"}, {b"content-length": b"100"}
    assert is_image(image | length, 100)
    for headers in (image, image | {b"content-length": b"101"}, length | {b"content-type": b"text/csv"}):
        assert not is_image(headers, 100)
    for nothing in ({}, {b"content-type": b"application/x-www-form-urlencoded"}):
        assert is_image(length | nothing, 100)
        assert not is_image(length | nothing | {b"inference-header-content-length": b"9"}, 100)
    for other in (b"multipart/form-data; boundary=x", b"application/octet-stream", b"application/json"):
        assert not is_image(length | {b"content-type": other}, 100)


def test_of_a_body_no_more_is_kept_than_an_image_may_have() -> None:
    exchange = Exchange(room=1, most=10)
    for kept in ([b"12345"], [b"12345", b"67890"], [], []):
        exchange.keep(b"67890" if exchange.body else b"12345")
        assert exchange.body == kept
