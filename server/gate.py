"""The gate before the application: an image that will not be let in is refused before anything else is done for it."""

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from server.answering import arrival, asked, refusals_counted
from server.errors import DeadlinePassed, Overloaded, ServeError
from server.parameters import Query
from server.service import Service
from server.tenants import key_in
from server.turns import Turns


@dataclass(frozen=True)
class _Route:
    path: str


CLASSIFY = _Route("/classify")


class Gate:
    """Refuses `POST /classify` where it is too late, or the load too much; what else is wrong its route says.

    In overload most requests end here, which takes less time than the way through FastAPI (benchmarks/served).
    `answer` makes the response out of the refusal.
    """

    def __init__(self, app: ASGIApp, service: Service, answer: Callable[[Request, ServeError], Response]) -> None:
        self.app, self._service, self._answer = app, service, answer
        self._turns = Turns()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http" and scope["path"] == CLASSIFY.path and scope["method"] == "POST":
            await self._turns.wait()
            refusal = self._refusal(scope)
            if refusal:
                scope["route"] = CLASSIFY
                await self._answer(Request(scope), refusal)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Overloaded | DeadlinePassed | None:
        serving = self._service
        try:
            query = Query.of(scope["query_string"])
            tenant, arrived = serving.tenants.of(key_in(Headers(scope=scope))), arrival(serving, scope["state"])
            ask = asked(serving, query.asks, 0, arrived, "", tenant=tenant, nearest=query.nearest)
            with refusals_counted(serving):
                ask.stages.end("receive")
                serving.check(ask.allowed, ask.stages.deadline - serving.clock(), tenant)
        except (Overloaded, DeadlinePassed) as error:
            return None if serving.refusing else error
        except (ServeError, RequestValidationError):
            pass
        return None
