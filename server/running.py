"""The HTTP server process: uvicorn, stopping in the order that loses no request."""

import asyncio
import gc
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pkgutil import resolve_name

import uvicorn
from fastapi import FastAPI

from server.app import Beside, create_app
from server.doorman import doorman
from server.frontends import FrontEnds
from server.leaving import Leaving, configuration
from server.listening import addresses, listen
from server.service import Service
from server.settings import Settings
from server.stopping import Stopping

log = logging.getLogger(__name__)

OTLP = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Server(Leaving):
    """Uvicorn that is first not ready, then refuses, then finishes what is in flight, and exits with 0."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.stopping = Stopping(service, lambda: len(self.server_state.tasks), self._finish)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say where; uvicorn says it of sockets that it has bound itself."""
        await super().startup(sockets)
        log.info("serving on %s", " ".join(addresses(sockets or [], tls=self.config.is_ssl)))

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They tell it to stop."""
        with self.stopping.signals():
            yield

    def _finish(self) -> None:
        self.should_exit = True


def run(settings: Settings, sockets: list[socket.socket], besides: Sequence[Beside]) -> Callable[[], None]:
    """Serve on bound sockets until told to stop and everything in flight is answered -> what sends the last traces.

    That may take its time: to be called when the sockets are closed.
    """
    app = create_app(settings, partial(_all, besides))
    finish_traces = start_traces(app, settings.otel_endpoint)
    gc.freeze()  # a full collection would take tens of milliseconds for what lives as long as the process
    gc.set_threshold(20_000, 20)  # requests leave nothing to collect: see benchmarks/served
    listen(sockets)
    if settings.frontends:
        with asyncio.Runner(loop_factory=configured(app, settings).get_loop_factory()) as runner:
            runner.run(serve_behind(app, sockets, settings.frontends))
    else:
        Server(configured(app, settings), app.state.service).run(sockets)
    return finish_traces


@asynccontextmanager
async def _all(besides: Sequence[Beside], service: Service) -> AsyncIterator[None]:
    async with AsyncExitStack() as answering:
        for beside in besides:
            await answering.enter_async_context(beside(service))
        yield


async def serve_behind(app: FastAPI, sockets: list[socket.socket], count: int) -> None:
    """Serve the application by so many front ends, which start while it does, until told to stop."""
    service: Service = app.state.service
    front_ends = FrontEnds(app, service, sockets, count)
    where = " ".join(addresses(sockets, tls=service.settings.tls_cert is not None))
    with Stopping(service, lambda: front_ends.unanswered, front_ends.stop).signals():
        running = asyncio.create_task(front_ends.run())
        try:
            async with app.router.lifespan_context(app):
                if not running.done():  # else it was told to stop meanwhile, or no front end stays alive
                    front_ends.admit()
                    log.info("serving on %s", where)
                await running
        finally:
            running.cancel()


def configured(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves the application in this process."""
    return configuration(
        app,
        most=settings.max_connections,
        patience=settings.header_timeout_s,
        on_refusal=app.state.service.metrics.count_refusal,
        doorman=doorman(app),
        drain=settings.drain_timeout_s,
        proxies=settings.forwarded_allow_ips,
        cert=settings.tls_cert,
        key=settings.tls_key,
    )


def start_traces(app: FastAPI, endpoint: str | None, environment: Mapping[str, str] = os.environ) -> Callable[[], None]:
    """Trace requests where somebody asks for it -> what sends the last spans, to be called at the end."""
    if endpoint is None and not any(environment.get(name) for name in OTLP):
        return lambda: None
    try:
        install: Callable[[FastAPI, str | None], Callable[[], None]] = resolve_name("server.tracing:install")
    except ModuleNotFoundError:
        if endpoint is not None:
            raise
        # The variable may be there for all programs of a cluster.
        log.warning("%s is set, but there are no traces: pip install 'stitchserve[otel]'", " or ".join(OTLP))
        return lambda: None
    return install(app, endpoint)
