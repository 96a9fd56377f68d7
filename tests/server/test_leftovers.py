"""What a refused request leaves behind: nothing, and not only once garbage is collected."""

import asyncio
import gc
from collections.abc import Iterator
from weakref import ref

import pytest
from conftest import Running
from test_batcher import house

from server.errors import DeadlinePassed, Draining, ServeError


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
