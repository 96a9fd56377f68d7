"""The gate before the application: images pass it in turns, and not by way of FastAPI."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import ServeError
from server.front import Front
from server.turns import Turns


@dataclass(frozen=True)
class _Route:
    path: str


CLASSIFY = _Route("/classify")


class _Indexed(Headers):
    """Headers that are looked up, not searched for, the first of a name."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope=scope)
        said: Iterable[tuple[bytes, bytes]] = reversed(scope["headers"])
        self._first = {name.decode("latin-1"): value.decode("latin-1") for name, value in said}

    def __getitem__(self, key: str) -> str:
        return self._first[key]

    def get(self, key: str, default: Any = None) -> Any:
        """By a name in lower case."""
        return self._first.get(key, default)


class _Asked(Request):
    def __init__(self, scope: Scope, receive: Receive) -> None:
        super().__init__(scope, receive)
        self._indexed = _Indexed(scope)

    @property
    def headers(self) -> Headers:
        return self._indexed


class Gate:
    """Has images answered by `classify`, the route's own function, in turns; `refuse` makes a response of a refusal.

    FastAPI's way to it adds about a third to what is done there besides decoding and the engine (benchmarks/served).
    """

    def __init__(
        self,
        classify: Callable[[Request], Awaitable[Response]],
        refuse: Callable[[Request, Exception], Awaitable[Response]],
        front: Front,
    ) -> None:
        self.classify, self._refuse, self._front = classify, refuse, front
        self._turns = Turns()

    async def answer(self, scope: Scope, receive: Receive) -> Response:
        """The response to one request."""
        await self._turns.wait()
        self._front.coming = max(0, self._front.coming - 1)  # not all have passed the doorman
        scope["route"], request = CLASSIFY, _Asked(scope, receive)
        try:
            return await self.classify(request)
        except (ServeError, RequestValidationError) as error:
            return await self._refuse(request, error)


class Guarded:
    """Has every `POST /classify` answered at the gate, before the application."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self.app, self._gate = app, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] != CLASSIFY.path or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        response = await self._gate.answer(scope, receive)
        await response(scope, receive, send)
