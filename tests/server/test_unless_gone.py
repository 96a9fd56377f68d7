"""Work that ends when its client leaves."""

import asyncio
from collections.abc import Callable

import pytest
from starlette.requests import Request

from server.connection import LEFT
from server.errors import ClientGone
from server.routes import unless_gone


class Client:
    """Stays until it leaves."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.request = Request({"type": "http"}, self._receive)

    async def _receive(self) -> dict[str, str]:
        await self.left.wait()
        return {"type": "http.disconnect"}


def test_work_is_done_in_the_task_of_its_caller() -> None:
    async def scenario() -> None:
        async def who() -> object:
            return asyncio.current_task()

        assert await unless_gone(Client().request, who()) is asyncio.current_task()

    asyncio.run(scenario())


def test_work_ends_when_its_client_leaves_and_the_caller_goes_on() -> None:
    async def scenario() -> None:
        client, ended = Client(), asyncio.Event()

        async def work() -> None:
            client.left.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        with pytest.raises(ClientGone):
            await unless_gone(client.request, work())
        assert ended.is_set()
        await asyncio.sleep(0)  # raises where the cancellation outlived the work

    asyncio.run(scenario())


def test_a_client_that_leaves_as_the_work_ends_disturbs_nobody() -> None:
    async def scenario() -> None:
        client = Client()

        async def work() -> str:
            client.left.set()
            return "done"

        assert await unless_gone(client.request, work()) == "done"
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(scenario())


def test_a_caller_that_is_cancelled_is_cancelled() -> None:
    async def scenario() -> None:
        client, begun = Client(), asyncio.Event()

        async def work() -> None:
            begun.set()
            await asyncio.Event().wait()

        caller = asyncio.create_task(unless_gone(client.request, work()))
        await begun.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller

    asyncio.run(scenario())


def test_connections_tell_themselves_and_are_not_asked() -> None:
    async def scenario() -> None:
        told: set[Callable[[], object]] = set()
        request = Request({"type": "http", "state": {LEFT: told}})  # which receives nothing

        async def work() -> None:
            for tell in tuple(told):
                tell()
            await asyncio.Event().wait()

        with pytest.raises(ClientGone):
            await unless_gone(request, work())
        assert not told

    asyncio.run(scenario())
