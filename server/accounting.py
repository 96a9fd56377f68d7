"""What is done for every request, whoever answers it: its id, the headers that all answers carry, and its count."""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import events, logs
from server.connection import UNREAD
from server.errors import Draining, ServeError
from server.metrics import Metrics
from server.refused import Header
from server.service import Service

MOST_PATH = 200  # bytes of a path that the log repeats
STOPPED = Draining("the server stopped before it could answer")


class Account:
    """One request's, from its beginning; what the server knows of it is its scope's `state`, `sent` its client's id."""

    def __init__(self, metrics: Metrics, state: MutableMapping[str, Any], sent: str) -> None:
        self._metrics, self._state, self._began = metrics, state, time.perf_counter()
        self.request_id = state["request_id"] = logs.begin(sent)

    def headers(self) -> list[Header]:
        """What is added to those of its answer."""
        added = [(b"x-request-id", self.request_id.encode())]
        if bucket := self._state.get("bucket"):
            added.extend(bucket.headers())
        if self._state.get(UNREAD, bool)():
            added.append((b"connection", b"close"))
        return added

    def end(self, route: str, status: int) -> float:
        """Count it, by its route's template -> the seconds that it took."""
        seconds = time.perf_counter() - self._began
        self._metrics.count_request(route, status, seconds)
        return seconds


class Accounting:
    """Gives every request its id and counts it once, by route template and status, when it ends.

    It also answers HEAD as GET, and tells a client whose body was not waited for that the connection ends. `refuse`
    makes a response of what a request was refused with.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        refuse: Callable[[Request, ServeError], Awaitable[Response]],
        access_log: bool = False,
    ) -> None:
        self.app, self.metrics, self._refuse, self.access_log = app, metrics, refuse, access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the lifespan, which passes through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, state = 0, scope.setdefault("state", {})
        account = Account(self.metrics, state, dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1"))
        method = scope["method"]
        state[events.HEAD_ALONE] = method == "HEAD"
        if method == "HEAD":
            scope = {**scope, "method": "GET"}  # a copy: the server knows by its own to send no body

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *account.headers()]
            await send(message)

        try:
            await self.app(scope, receive, tell)
        except asyncio.CancelledError:  # the server's time to finish is over
            if not status:
                await (await self._refuse(Request(scope), STOPPED))(scope, receive, tell)
        finally:
            seconds = account.end(getattr(scope.get("route"), "path", "unmatched"), status or 500)
            if self.access_log:
                path = scope["raw_path"][:MOST_PATH].decode("ascii", "backslashreplace")
                client = scope["client"][0] if scope["client"] else "-"
                logs.log_access(f"{method} {path}", client, status or 500, seconds)


def others_see(app: FastAPI) -> bool:
    """Whether another than Accounting is to see every request: the log, a trace, or what knows of origins."""
    service: Service = app.state.service
    outermost: object = app.user_middleware[0].cls
    return outermost is not Accounting or service.settings.access_log
