"""The log: a line an event, with the request's id and without its secrets."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from pathlib import Path
from typing import Any

import pytest
from conftest import run, settings

from server import logs
from server.errors import InternalError
from server.service import build

Configure = Callable[[logs.Form], io.StringIO]


@pytest.fixture
def configure() -> Iterator[Configure]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level

    def to_text(form: logs.Form) -> io.StringIO:
        stream = io.StringIO()
        root.handlers.clear()  # else they would be closed, pytest's among them
        # Servers of other tests may have set these, and they stay.
        logging.captureWarnings(False)
        for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
            logging.getLogger(name).handlers.clear()
            logging.getLogger(name).propagate = True
        logs.configure(form, stream)
        return stream

    yield to_text
    root.handlers[:] = before
    root.setLevel(level)
    logging.captureWarnings(False)


def failing() -> None:
    try:
        raise OSError("no disk")
    except OSError:
        logging.getLogger("x").exception("it failed")


def test_json_has_an_object_a_line(configure: Configure) -> None:
    stream = configure("json")
    logging.getLogger("uvicorn.error").info("started %d", 7)
    failing()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    first, second, third = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["level"], first["logger"], first["message"]) == ("info", "uvicorn.error", "started 7")
    assert first["time"].endswith("+00:00")
    assert "OSError: no disk" in second["exception"]
    assert "old" in third["message"]


def test_text_is_one_line_whatever_a_client_sends(configure: Configure) -> None:
    stream = configure("text")
    logging.getLogger("x").warning("said %s", "a\nERROR x: b\x1b[2J\u2028", extra=logs.fields(path="c\r\nd"))
    (line,) = stream.getvalue().splitlines()
    assert line.endswith(r"WARNING x: said a\nERROR x: b\x1b[2J\u2028 path=c\r\nd")


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_requests_lines_carry_its_id(configure: Configure, form: logs.Form) -> None:
    stream = configure(form)

    def answer() -> None:
        logs.request_id.set("id-7")
        logging.getLogger("x").info("inside")

    Context().run(answer)
    logging.getLogger("x").info("outside")
    inside, outside = stream.getvalue().splitlines()
    assert "id-7" in inside
    assert "request_id" not in outside


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_requests_are_told_of_when_that_is_asked_for(configure: Configure, cache: Path, sample: bytes) -> None:
    service = build(settings(cache, access_log=True))
    stream = configure("json")
    for running in run(service):
        with running.client() as client:
            secrets = {"authorization": "Bearer hunter2", "x-api-key": "hunter2", "x-request-id": "mine-1"}
            client.post("/classify?stitch=1&key=hunter2", content=sample, headers=secrets)
            client.get("/nowhere%0Aelse?key=hunter2")
    told = [line for line in lines(stream) if line["logger"] == "server.access"]
    assert [(line["message"], line["status"]) for line in told] == [
        ("POST /classify", 422), ("GET /nowhere%0Aelse", 404),
    ]  # fmt: skip
    assert told[0]["request_id"] == "mine-1"
    assert (told[0]["client"], told[0]["ms"] > 0) == ("127.0.0.1", True)
    assert "hunter2" not in str([line for line in lines(stream) if line["logger"] != "httpx"]), "the test's own client"


def test_failures_are_told_of_and_refusals_are_not(configure: Configure, cache: Path, sample: bytes) -> None:
    service = build(settings(cache))
    stream = configure("json")
    for running in run(service):
        with running.client() as client:
            assert client.post("/classify", content=sample).status_code == 200
            assert client.post("/classify?stitch=999", content=sample).status_code == 422
            service.engine.run = broken  # type: ignore[method-assign, assignment]
            failed = client.post("/classify", content=sample, headers={"x-request-id": "mine-2"})
            service.decode_pool = BrokenPool()
            large = sample + bytes(10_000)
            crashed = client.post("/classify", content=large, headers={"x-request-id": "mine-3"})
    assert (failed.status_code, crashed.status_code) == (500, 500)
    errors = [line for line in lines(stream) if line["level"] == "error"]
    assert [line.get("request_id") for line in errors] == [None, "mine-2", "mine-3"]
    assert "boom" in errors[0]["exception"]
    assert "boom" in errors[1]["message"]
    assert "no thread" in errors[2]["exception"]
    assert not [line for line in lines(stream) if line["logger"] == "server.access"]


def broken(*_: object) -> Any:
    raise InternalError("boom")


class BrokenPool(ThreadPoolExecutor):
    def submit(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no thread")
