"""A proxy whose replica dies, and what the client gets."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from server.resending import Resending, middlewares

BODY = [b"one", b"two"]
Try = Callable[[bytes, Send], Awaitable[None]]


def start(**headers: str) -> Message:
    found = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": 200, "headers": found}


def body(content: bytes, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}


async def answers(content: bytes, send: Send) -> None:
    await send(start())
    await send(body(b"answer to ", more=True))
    await send(body(content))


async def dies(content: bytes, send: Send) -> None:
    pass


async def dies_in_its_answer(content: bytes, send: Send) -> None:
    await send(start())
    await send(body(b"half", more=True))


class Proxy:
    """Reads the whole request, and then does what the next of its tries does."""

    def __init__(self, *tries: Try) -> None:
        self.tries, self.bodies, self.ids = list(tries), list[bytes](), list[Any]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.ids.append(scope.setdefault("id", len(self.ids)))
        content = b""
        while (message := await receive())["type"] == "http.request":
            content += message["body"]
            if not message["more_body"]:
                break
        self.bodies.append(content)
        await self.tries.pop(0)(content, send)


def ask(proxy: Proxy, method: str = "POST", path: str = "/classify", gone: bool = False) -> list[Message]:
    """What the client is sent."""
    pieces: list[Message] = [{"type": "http.request", "body": each, "more_body": each != BODY[-1]} for each in BODY]
    coming = iter([pieces[0], {"type": "http.disconnect"}] if gone else pieces)
    sent: list[Message] = []

    async def receive() -> Message:
        return next(coming)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path}
    asyncio.run(Resending(proxy)(scope, receive, send))
    return sent


def content(sent: list[Message]) -> bytes:
    return b"".join(each["body"] for each in sent[1:])


def test_an_answer_is_passed_on_as_it_is() -> None:
    proxy = Proxy(answers)
    sent = ask(proxy)
    assert sent == [start(), body(b"answer to ", more=True), body(b"onetwo")]
    assert proxy.bodies == [b"onetwo"]


@pytest.mark.parametrize("failure", [dies, dies_in_its_answer])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/classify"),
        ("POST", "/prefix/classify/batch"),
        ("POST", "/v2/models/digits/infer"),
        ("GET", "/status"),
        ("HEAD", "/anything"),
    ],
)
def test_what_changes_nothing_is_sent_again_whole(failure: Try, method: str, path: str) -> None:
    proxy = Proxy(failure, answers)
    sent = ask(proxy, method, path)
    assert [each["type"] for each in sent].count("http.response.start") == 1
    assert content(sent) == b"answer to onetwo"
    assert proxy.bodies == [b"onetwo"] * 2
    assert proxy.ids == [0, 1], "what the proxy writes into a scope stays in it"


@pytest.mark.parametrize(("method", "path"), [("POST", "/orders"), ("PUT", "/control"), ("POST", "/classify/more")])
def test_what_may_change_something_is_not(method: str, path: str) -> None:
    proxy = Proxy(dies, answers)
    assert not ask(proxy, method, path)
    assert len(proxy.bodies) == 1


def test_nothing_is_sent_again_for_a_client_that_left() -> None:
    proxy = Proxy(dies, answers)
    assert not ask(proxy, gone=True)
    assert len(proxy.bodies) == 1


def test_where_every_replica_dies_the_problem_says_so() -> None:
    proxy = Proxy(dies, dies_in_its_answer, dies)
    sent = ask(proxy)
    assert sent[0]["status"] == 503
    headers = dict(sent[0]["headers"])
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"retry-after"] == b"1"
    assert json.loads(content(sent))["detail"] == "3 replicas did not live to answer"
    assert not proxy.tries


def test_a_header_that_application_and_proxy_give_comes_once() -> None:
    async def twice(content: bytes, send: Send) -> None:
        headers = [(b"x-request-id", b"a"), (b"vary", b"b"), (b"x-request-id", b"a")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send(body(b""))

    assert ask(Proxy(twice))[0]["headers"] == [(b"x-request-id", b"a"), (b"vary", b"b")]


def test_other_protocols_pass_through() -> None:
    seen: list[str] = []

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: object) -> Any:
        raise AssertionError

    asyncio.run(Resending(proxy)({"type": "websocket", "path": "/classify"}, nothing, nothing))
    assert seen == ["websocket"]


def test_ray_is_given_the_class() -> None:
    (given,) = middlewares()
    assert given.cls is Resending  # type: ignore[comparison-overlap]
