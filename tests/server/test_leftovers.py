"""What requests leave behind: one refused nothing, one that waits no body, and not only once garbage is collected."""

import asyncio
import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any
from weakref import ref

import pytest
from conftest import Running, run, settings
from test_batcher import house

from server.errors import BadRequest, DeadlinePassed, Draining, ServeError
from server.form import FormReader
from server.service import build


class Image(str):
    """What is asked about, and can be looked for."""

    __slots__ = ("__weakref__",)


@pytest.fixture(autouse=True)
def uncollected() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("refusal", [DeadlinePassed, Draining])
def test_the_image_of_one_that_was_refused_while_it_waited_is_gone(running: Running, refusal: type[ServeError]) -> None:
    async def scenario() -> None:
        async with house(running.service.table) as home:
            home.engine.gate.clear()
            first = home.submit("first")
            await home.until_running()
            image = Image("late")
            known = ref(image)
            late = home.submit(image, slack=0.5)
            del image
            await home.until_queued(1)
            if refusal is Draining:
                [request] = home.batcher.queue.take(1)
                request.refuse(Draining("stop"))
                del request
            else:
                home.clock.now += 1.0
            home.engine.gate.set()
            await asyncio.wait([late])
            assert type(late.exception()) is refusal
            del late
            await first
            assert known() is None

    asyncio.run(scenario())


def test_a_body_is_let_go_when_its_image_is_read(cache: Path, sample: bytes) -> None:
    service, begun, gate = build(settings(cache)), Event(), Event()
    compute = service.engine.run

    def held(*batch: Any) -> Any:
        begun.set()
        assert gate.wait(60)
        return compute(*batch)

    for running in run(service):
        service.engine.run = held  # type: ignore[method-assign, assignment]
        with running.client() as client, ThreadPoolExecutor() as threads:
            answer = threads.submit(client.post, "/classify", content=sample)
            assert begun.wait(60)
            assert (service.limiter.inside, service.bodies.held) == (1, 0)
            gate.set()
            assert answer.result(60).status_code == 200


@pytest.mark.parametrize(
    "body", [b"--b\r\nContent-Disposition: form-data; name=a; filename=a\r\n\r\nimage\r\n--b--", b"--b no"]
)
def test_what_read_a_form_is_gone_with_it(body: bytes) -> None:
    reader = FormReader("multipart/form-data; boundary=b", 100, 1)
    known = ref(reader)
    with suppress(BadRequest):
        reader.feed(body)
    del reader
    assert known() is None
