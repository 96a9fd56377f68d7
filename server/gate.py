"""The gate before the application: images pass it, and not by way of FastAPI."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from server.answering import DUE
from server.errors import DeadlinePassed, Overloaded, RateLimited, ServeError
from server.front import Front


@dataclass(frozen=True)
class _Route:
    path: str


CLASSIFY = _Route("/classify")


class _Indexed(Headers):
    """Headers that are looked up, not searched for, the first of a name."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope=scope)
        self._first: dict[bytes, bytes] = dict(reversed(scope["headers"]))

    def __getitem__(self, key: str) -> str:
        return self._first[key.encode("latin-1")].decode("latin-1")

    def get(self, key: str, default: Any = None) -> Any:
        """By a name in lower case."""
        value = self._first.get(key.encode("latin-1"))
        return default if value is None else value.decode("latin-1")


class _Asked(Request):
    def __init__(self, scope: Scope, receive: Receive) -> None:
        super().__init__(scope, receive)
        self._indexed = _Indexed(scope)

    @property
    def headers(self) -> Headers:
        return self._indexed


class Gate:
    """Has `POST /classify` answered by `classify`, the route's own function; `refuse` makes a response of its refusal.

    FastAPI's way to it adds about a third to what is done there besides decoding and the engine (benchmarks/served).
    """

    def __init__(
        self,
        app: ASGIApp,
        classify: Callable[[Request], Awaitable[Response]],
        refuse: Callable[[Request, Exception], Awaitable[Response]],
        front: Front,
    ) -> None:
        self.app, self._classify, self._refuse, self._front = app, classify, refuse, front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] != CLASSIFY.path or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        self._front.coming = max(0, self._front.coming - 1)  # not all have passed the doorman
        scope["route"], request = CLASSIFY, _Asked(scope, receive)
        try:
            response = await self._classify(request)
        except (ServeError, RequestValidationError) as error:
            if isinstance(error, (DeadlinePassed, Overloaded, RateLimited)):
                error.__traceback__ = None  # which knows the body
                await asyncio.sleep(self._front.held(scope["state"].get(DUE, 0.0)))
            response = await self._refuse(request, error)
        await response(scope, receive, send)
