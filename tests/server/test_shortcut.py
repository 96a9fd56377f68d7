"""The short way: all that the application would have done for a request to classify an image."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Running, settings
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from server.app import application
from server.errors import BadBudget
from server.gate import CLASSIFY
from server.rates import Bucket, Rate
from server.service import Service
from server.shortcut import shortcut


async def receive() -> Message:
    raise AssertionError


def asked(running: Running, cache: Path, classify: Callable[[Request], Any], **changes: Any) -> tuple[Response, str]:
    """The answer where the route's function is this, and what is counted then."""
    service = Service(settings(cache), running.service.engine, running.service.table)
    app = application(service)
    app.state.gate.classify = classify
    short = shortcut(app)
    assert short
    scope = {
        "type": "http", "method": "POST", "path": CLASSIFY.path, "query_string": b"", "client": None,
        "headers": [(b"x-request-id", b"mine")], "state": {},
    } | changes  # fmt: skip
    response = asyncio.run(short.answer(scope, receive))
    return response, service.metrics.exposition().decode()


def counted(status: int) -> str:
    return f'stitchserve_requests_total{{route="/classify",status="{status}"}} 1.0'


def test_an_answer_has_its_requests_id_and_is_counted(running: Running, cache: Path) -> None:
    async def classify(request: Request) -> Response:
        request.scope["state"]["bucket"] = Bucket(Rate(5.0, 5), lambda: 0.0)
        return Response(f"{request.scope['route'].path} {request.app.title}")

    response, metrics = asked(running, cache, classify)
    assert (response.status_code, response.body) == (200, b"/classify stitchserve")
    assert response.headers["x-request-id"] == "mine"
    assert response.headers["x-ratelimit-limit"] == "5"
    assert counted(200) in metrics
    assert 'stitchserve_request_seconds_count{route="/classify"} 1.0' in metrics


@pytest.mark.parametrize(
    ("error", "status", "title"),
    [
        (BadBudget("cheap: no budget"), 422, "Bad budget"),
        (KeyError("no such thing"), 500, "Internal error"),
        (asyncio.CancelledError(), 503, "Draining"),
    ],
)
def test_what_goes_wrong_is_told_and_counted(
    running: Running, cache: Path, error: BaseException, status: int, title: str
) -> None:
    async def classify(_: Request) -> Response:
        raise error

    response, metrics = asked(running, cache, classify)
    problem = json.loads(bytes(response.body))
    assert (response.status_code, problem["status"], problem["title"]) == (status, status, title)
    assert "no such thing" not in problem["detail"]
    assert response.headers["x-request-id"] == "mine"
    assert counted(status) in metrics


@pytest.mark.parametrize("seen", [{"access_log": True}, {"cors_origin": ["https://shop.example"]}])
def test_there_is_none_where_others_are_to_see_every_request(
    running: Running, cache: Path, seen: dict[str, object]
) -> None:
    service = Service(settings(cache, **seen), running.service.engine, running.service.table)
    assert shortcut(application(service)) is None
