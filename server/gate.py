"""The gate before the application: images pass it in turns, and not by way of FastAPI."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import ServeError
from server.turns import Turns


@dataclass(frozen=True)
class _Route:
    path: str


CLASSIFY = _Route("/classify")


class Gate:
    """Has `POST /classify` answered by `classify`, the route's own function; `refuse` makes a response of its refusal.

    FastAPI's way to it adds about a third to what is done there besides decoding and the engine (benchmarks/served).
    """

    def __init__(
        self,
        app: ASGIApp,
        classify: Callable[[Request], Awaitable[Response]],
        refuse: Callable[[Request, Exception], Awaitable[Response]],
    ) -> None:
        self.app, self._classify, self._refuse = app, classify, refuse
        self._turns = Turns()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] != CLASSIFY.path or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        await self._turns.wait()
        scope["route"], request = CLASSIFY, Request(scope, receive)
        try:
            response = await self._classify(request)
        except (ServeError, RequestValidationError) as error:
            response = await self._refuse(request, error)
        await response(scope, receive, send)
