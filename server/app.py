"""The application: one service, its routes, its errors and its life."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import anatomy, control, events, gauges, logs, routes, v2
from server.connection import UNREAD
from server.console import add_console
from server.docs import add_docs
from server.errors import Draining, InternalError, ServeError
from server.gate import Gate
from server.metrics import Metrics
from server.openapi import define_schemas
from server.refused import PROBLEM
from server.service import Service, build
from server.settings import Settings

log = logging.getLogger(__name__)

CORS: Mapping[str, Any] = {
    "allow_methods": ["GET", "POST"],
    "allow_headers": ["Authorization", "Content-Type", "X-API-Key", "X-Request-Id", "Inference-Header-Content-Length"],
    "expose_headers": [
        "Inference-Header-Content-Length",
        "Retry-After",
        "Server-Timing",
        "X-RateLimit-Limit",
        "X-RateLimit-Remaining",
        "X-RateLimit-Reset",
        "X-Request-Id",
        "X-Stitch-Id",
    ],
}
"""What a page of an allowed origin may send and see; no cookies, for there are none, and no PUT /control."""

MOST_PATH = 200  # bytes of a path that the log repeats


Beside = Callable[[Service], AbstractAsyncContextManager[object]]
"""What answers beside the application, as long as it does."""


def nothing(_: Service) -> AbstractAsyncContextManager[object]:
    """Nothing is there beside it."""
    return nullcontext()


def create_app(settings: Settings, beside: Beside = nothing) -> FastAPI:
    """The application for these settings, with its model loaded and its latencies known."""
    return application(build(settings), beside)


def application(service: Service, beside: Beside = nothing) -> FastAPI:
    """The application around a service; one service has one."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        async with beside(service):
            yield
        await service.stop()

    app = FastAPI(
        title="stitchserve",
        version=version("stitchserve"),
        description="Serves stitchable neural networks: every request gets the network that its budget allows.",
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # to whatever host the client says
        telemetry={"tracing": False, "metrics": False, "logs": False},  # tracing.py and metrics.py do it
    )
    app.state.service = service
    gauges.show(service)
    app.include_router(routes.router)
    app.include_router(control.router)
    app.include_router(anatomy.router)
    events.add_events(app, service)
    v2.add_routes(app)
    add_docs(app)
    add_console(app, service.settings.family)
    define_schemas(app)
    app.add_middleware(Gate, classify=routes.classify, refuse=on_fault, front=service.front)
    app.add_middleware(Accounting, metrics=service.metrics, access_log=service.settings.access_log)
    if service.settings.cors_origin:
        app.add_middleware(CORSMiddleware, allow_origins=service.settings.cors_origin, **CORS)
    app.add_exception_handler(ServeError, on_refusal)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(Exception, on_failure)
    return app


def problem_response(request: Request, problem: dict[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """A problem as RFC 9457 has it, or, where the route is of another protocol, as that one has it."""
    if f"{request.scope['path']}/".startswith(f"{v2.PREFIX}/"):
        return JSONResponse({"error": problem["detail"]} | problem, problem["status"], headers)
    return JSONResponse(problem, problem["status"], headers, PROBLEM)


async def on_refusal(request: Request, error: Exception) -> Response:
    """A refusal as RFC 9457 has it, with Retry-After where coming back helps."""
    assert isinstance(error, ServeError)  # noqa: S101 - registered for this class alone
    if isinstance(error, InternalError):
        log.error("a request failed: %s", error.detail)
    return _refusal(request, error)


async def on_fault(request: Request, error: Exception) -> Response:
    """Whichever of `on_refusal` and `on_invalid` it is for."""
    return await (on_refusal if isinstance(error, ServeError) else on_invalid)(request, error)


def _refusal(request: Request, error: ServeError) -> Response:
    headers = {} if error.retry_seconds is None else {"Retry-After": str(error.retry_seconds)}
    return problem_response(request, error.problem(), headers)


async def on_http(request: Request, error: Exception) -> Response:
    """No such route, or not with this method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    allowed = (error.headers or {}).get("Allow")
    detail = f"this route takes {allowed}" if allowed else error.detail
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail += ": there is no such route; see /docs"
    problem = {"type": "about:blank", "title": error.detail, "status": error.status_code, "detail": detail}
    return problem_response(request, problem, error.headers)


async def on_invalid(request: Request, error: Exception) -> Response:
    """A query parameter that does not parse: names the first, lists all."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class alone
    faults = [{"field": str(_field(e["loc"])), "reason": e["msg"]} for e in error.errors()]
    detail = f"{faults[0]['field']}: {faults[0]['reason']}"
    if error.errors()[0]["loc"][0] == "body":
        detail += "; send a JSON object with Content-Type: application/json"
    problem = {"type": "/problems/bad-parameter", "title": "Bad parameter", "status": 422, "detail": detail}
    return problem_response(request, problem | {"errors": faults})


def _field(place: Sequence[str | int]) -> str | int:
    """The innermost name; a number is where JSON cannot be read on."""
    return next((part for part in reversed(place) if isinstance(part, str)), place[-1])


async def on_failure(request: Request, error: Exception) -> Response:
    """Whatever else went wrong: told to the log, not to the caller."""
    headers = {"Connection": "close"}  # which uvicorn does, saying nothing
    return problem_response(request, InternalError(str(error)).problem(), headers)


class Accounting:
    """Gives every request its id and counts it once, by route template and status, when it ends.

    It also answers HEAD as GET, and tells a client whose body was not waited for that the connection ends.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, access_log: bool = False) -> None:
        self.app, self.metrics, self.access_log = app, metrics, access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the lifespan, which passes through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0
        state = scope.setdefault("state", {})
        unread = state.get(UNREAD, bool)
        sent = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = state["request_id"] = logs.begin(sent)
        method = scope["method"]
        state[events.HEAD_ALONE] = method == "HEAD"
        if method == "HEAD":
            scope = {**scope, "method": "GET"}  # a copy: the server knows by its own to send no body

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
                if bucket := state.get("bucket"):
                    message["headers"].extend(bucket.headers())
                if unread():
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            await self.app(scope, receive, tell)
        except asyncio.CancelledError:  # the server's time to finish is over
            if not status:
                stopped = Draining("the server stopped before it could answer")
                await _refusal(Request(scope), stopped)(scope, receive, tell)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            seconds = time.perf_counter() - started
            self.metrics.count_request(route, status or 500, seconds)
            if self.access_log:
                path = scope["raw_path"][:MOST_PATH].decode("ascii", "backslashreplace")
                client = scope["client"][0] if scope["client"] else "-"
                logs.log_access(f"{method} {path}", client, status or 500, seconds)
