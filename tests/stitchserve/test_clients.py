"""Both clients against a server that says what the test tells it to."""

import asyncio
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from scripted import ANSWER, HANG_UP, Asked, Reply, busy, scripted

from stitchserve import (
    AsyncClient,
    Classification,
    Client,
    DeadlinePassed,
    Forbidden,
    RateLimited,
    Refused,
    Retrying,
    StitchserveError,
    TimedOut,
    Unavailable,
    Unreachable,
)

SOON = Retrying(first=0, least=0)
Classify = Callable[..., Classification]


def sync_classify(url: str, *arguments: Any, options: dict[str, Any] | None = None, **more: Any) -> Classification:
    with Client(url, **(options or {})) as client:
        return client.classify(*arguments, **more)


def async_classify(url: str, *arguments: Any, options: dict[str, Any] | None = None, **more: Any) -> Classification:
    async def ask() -> Classification:
        async with AsyncClient(url, **(options or {})) as client:
            return await client.classify(*arguments, **more)

    return asyncio.run(ask())


both = pytest.mark.parametrize("classify", [sync_classify, async_classify])


@both
def test_an_answer_is_typed(classify: Classify) -> None:
    with scripted(Reply()) as (url, _):
        answer = classify(url, b"file")
    assert (answer.label, answer.predictions[1].index) == ("17", 12)
    assert (answer.stitch.id, answer.stitch.top1, answer.budget.met) == (1, 84.75, True)
    assert (answer.tries, answer.downgraded, answer.request_id) == (1, False, "1ab1")


@both
def test_image_budget_and_key_are_sent(classify: Classify, tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"a file")
    with scripted(Reply()) as (url, asked):
        classify(
            f"{url}/behind/a/path", tmp_path / "cat.jpg", "2GFLOPs, 15ms", min_top1=78, top_k=3, nearest=True,
            options={"api_key": "secret"},
        )  # fmt: skip
    (one,) = asked
    assert (one.method, one.path, one.body) == ("POST", "/behind/a/path/classify", b"a file")
    assert one.query == {
        "budget": ["2GFLOPs", "15ms"], "min_top1": ["78"], "top_k": ["3"], "on_infeasible": ["nearest"],
    }  # fmt: skip
    assert (one.headers["authorization"], one.headers["content-type"]) == ("Bearer secret", "application/octet-stream")


@both
def test_a_refusal_for_load_is_tried_again(classify: Classify) -> None:
    with scripted(busy(), busy(None), Reply()) as (url, asked):
        answer = classify(url, b"file", "78%", options={"retrying": SOON})
    assert (answer.tries, answer.downgraded) == (3, False)
    assert [one.query for one in asked] == [{"budget": ["78%"]}] * 3
    assert [one.body for one in asked] == [b"file"] * 3


@both
def test_a_bounded_number_of_times(classify: Classify) -> None:
    with scripted(busy()) as (url, asked), pytest.raises(Unavailable) as raised:
        classify(url, b"file", options={"retrying": SOON})
    assert len(asked) == 3
    refused = raised.value
    assert (refused.status, refused.type, refused.detail) == (503, "/problems/overloaded", "come back later")
    assert refused.retry_after == 0


@both
def test_downgraded_where_that_is_asked_for(classify: Classify) -> None:
    with scripted(busy(), Reply()) as (url, asked):
        how = Retrying(first=0, least=0, downgrade=True)
        answer = classify(url, b"file", "2GFLOPs,78%,15ms", options={"retrying": how})
    assert (answer.tries, answer.downgraded) == (2, True)
    assert asked[1].query == {"budget": ["1.0gflops", "15ms"], "on_infeasible": ["nearest"]}


@both
@pytest.mark.parametrize(
    ("status", "kind"), [(400, Refused), (401, Forbidden), (422, Refused), (429, RateLimited), (504, DeadlinePassed)]
)
def test_what_would_fail_again_is_not_tried_again(classify: Classify, status: int, kind: type[Refused]) -> None:
    problem = {"type": "/problems/x", "title": "X", "status": status, "detail": "why", "nearest_stitch": 3}
    reply = Reply(status, problem, {"Retry-After": "1", "X-Request-Id": "7"})
    with scripted(reply) as (url, asked), pytest.raises(kind, match="why") as raised:
        classify(url, b"file", options={"retrying": SOON})
    assert len(asked) == 1
    assert (raised.value.status, raised.value.type, raised.value.problem["nearest_stitch"]) == (
        status, "/problems/x", 3,
    )  # fmt: skip
    assert (raised.value.retry_after, raised.value.request_id) == (1, "7")


@both
def test_later_than_it_would_wait_is_too_late(classify: Classify) -> None:
    with scripted(busy("11")) as (url, asked), pytest.raises(Unavailable) as raised:
        classify(url, b"file")
    assert (len(asked), raised.value.retry_after) == (1, 11)


@both
def test_a_connection_that_breaks_is_tried_again(classify: Classify) -> None:
    with scripted(HANG_UP, Reply()) as (url, asked):
        assert classify(url, b"file", options={"retrying": SOON}).tries == 2
    assert len(asked) == 2


@both
@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://127.0.0.1", ""])
def test_what_is_no_address_is_named(classify: Classify, url: str) -> None:
    with pytest.raises(ValueError, match="give one as in http"):
        classify(url, b"file")


@both
def test_nobody_there(classify: Classify) -> None:
    with scripted(Reply()) as (url, _):
        pass
    with pytest.raises(Unreachable, match="ConnectError"):
        classify(url, b"file", options={"retrying": SOON})


@both
@pytest.mark.parametrize("content", [b"<html>", [], {"predictions": []}])
def test_what_is_no_answer_is_named(classify: Classify, content: Any) -> None:
    with scripted(Reply(200, content)) as (url, _), pytest.raises(StitchserveError, match="no answer of a stitchserve"):
        classify(url, b"file")


def test_a_balancers_page_is_a_refusal_too() -> None:
    page = Reply(502, b"<html>", {"Content-Type": "text/html"})
    with scripted(page) as (url, _), pytest.raises(Refused, match="502 Bad Gateway") as raised:
        sync_classify(url, b"file")
    assert raised.value.type == "about:blank"


def test_connections_are_kept() -> None:
    with scripted(Reply()) as (url, asked), Client(url) as client:
        for _ in range(3):
            client.classify(b"file")
    assert len({one.peer for one in asked}) == 1


class Silent(httpx.BaseTransport):
    """Notes how long it may take, and takes longer."""

    def __init__(self) -> None:
        self.limits: list[float] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.limits.append(request.extensions["timeout"]["read"])
        raise httpx.ReadTimeout("too slow", request=request)


def test_it_waits_for_the_deadline_and_a_margin_once() -> None:
    transport = Silent()
    with Client("http://x", transport=transport, margin=3) as client:
        for budget in ("2GFLOPs,500ms", "1.5s", "78%"):
            with pytest.raises(TimedOut):
                client.classify(b"file", budget)
        with pytest.raises(TimedOut):
            client.classify(b"file", deadline_ms=250)
    assert transport.limits == [3.5, 4.5, 30, 3.25]
    with Client("http://x", transport=transport, timeout=1) as client, pytest.raises(TimedOut):
        client.classify(b"file", "5s")
    assert transport.limits[-1] == 1


def test_a_client_is_shared_by_threads() -> None:
    answers: list[str] = []
    with scripted(Reply()) as (url, asked), Client(url) as client:
        threads = [threading.Thread(target=lambda: answers.append(client.classify(b"file").label)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (answers, len(asked)) == (["17"] * 8, 8)


BATCH = {"results": [ANSWER, {"type": "/problems/bad-image", "title": "Bad image", "status": 400, "detail": "torn"}]}


def batch_of_two(asked: list[Asked]) -> None:
    (one,) = asked
    assert (one.path, one.query) == ("/classify/batch", {"top_k": ["1"]})
    assert one.body.count(b'name="image"') == one.body.count(b'name="budget"') == 2
    assert one.body.index(b"20MFLOPs") < one.body.index(b"1s,78%")


def test_a_batch_gives_each_its_result() -> None:
    with scripted(Reply(200, BATCH)) as (url, asked), Client(url) as client:
        first, second = client.classify_batch([b"one", b"two"], budgets=["20MFLOPs", ["1s", "78%"]], top_k=1)
        with pytest.raises(ValueError, match="1 for 2 images"):
            client.classify_batch([b"one", b"two"], budgets=["1s"])
        with pytest.raises(ValueError, match="none; give one"):
            client.classify_batch([])
    assert isinstance(first, Classification)
    assert first.label == "17"
    assert isinstance(second, Refused)
    assert (second.status, second.detail) == (400, "torn")
    batch_of_two(asked)


def test_a_batch_without_waiting() -> None:
    async def ask(url: str) -> list[Classification | Refused]:
        async with AsyncClient(url) as client:
            return await client.classify_batch([b"one", b"two"], budgets=["20MFLOPs", ["1s", "78%"]], top_k=1)

    with scripted(Reply(200, BATCH)) as (url, asked):
        first, second = asyncio.run(ask(url))
    assert isinstance(first, Classification)
    assert isinstance(second, Refused)
    batch_of_two(asked)


def test_a_picture_in_memory_is_sent_as_png() -> None:
    with scripted(Reply()) as (url, asked):
        sync_classify(url, Image.new("RGB", (3, 2), (1, 2, 3)))
    sent = Image.open(io.BytesIO(asked[0].body))
    assert (sent.format, sent.size, sent.getpixel((0, 0))) == ("PNG", (3, 2), (1, 2, 3))
