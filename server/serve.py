"""The HTTP server process: uvicorn, stopping in the order that loses no request."""

import asyncio
import gc
import logging
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from functools import partial
from importlib.metadata import version
from pkgutil import resolve_name

import uvicorn
from fastapi import FastAPI

from server import logs
from server.app import Beside, create_app
from server.frontends import FrontEnds
from server.leaving import Leaving, configuration
from server.listening import addresses, bound, listen
from server.service import Service
from server.settings import Settings
from server.stopping import Stopping

log = logging.getLogger(__name__)

OTLP = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
OTHER_FILES = 100  # open files beside the connections: the model's, the log's, ...


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


class Serve(Settings):
    """Answer images over HTTP. Every option is also an environment variable: --slo-ms is STITCHSERVE_SLO_MS."""

    def cli_cmd(self) -> None:
        """Serve until told to stop; returns when everything in flight is answered."""
        logs.configure(self.log_format)
        log.info("stitchserve %s", version("stitchserve"))
        _allow_open_files(self.max_connections + OTHER_FILES)
        check_certificate(self)
        with bound(self.host, self.port) as sockets, others(self) as beside:
            app = create_app(self, beside)
            finish_traces = start_traces(app, self.otel_endpoint)
            gc.freeze()  # a full collection would take tens of milliseconds for what lives as long as the process
            listen(sockets)
            if self.frontends:
                with asyncio.Runner(loop_factory=configured(app, self).get_loop_factory()) as runner:
                    runner.run(serve_behind(app, sockets, self.frontends))
            else:
                Server(configured(app, self), app.state.service).run(sockets)
        finish_traces()
        log.info("stopped")


@contextmanager
def others(settings: Settings) -> Iterator[Beside]:
    """What answers beside HTTP: gRPC and the agent, where a port is given, taken at once; raises as `bound`."""
    kinds = (
        ("--grpc-port", settings.grpc_port, "server.grpc_v2"),
        ("--agent-port", settings.agent_port, "server.agent"),
    )
    with ExitStack() as holding:
        yield partial(
            _all,
            [
                partial(resolve_name(f"{module}:answering"), holding.enter_context(bound(settings.host, port, option)))
                for option, port, module in kinds
                if port is not None
            ],
        )


@asynccontextmanager
async def _all(besides: list[Beside], service: Service) -> AsyncIterator[None]:
    async with AsyncExitStack() as answering:
        for beside in besides:
            await answering.enter_async_context(beside(service))
        yield


async def serve_behind(app: FastAPI, sockets: list[socket.socket], count: int) -> None:
    """Serve the application by so many front ends, until told to stop."""
    service: Service = app.state.service
    front_ends = FrontEnds(app, service, sockets, count)
    with Stopping(service, lambda: front_ends.unanswered, front_ends.stop).signals():
        async with app.router.lifespan_context(app):
            log.info("serving on %s", " ".join(addresses(sockets, tls=service.settings.tls_cert is not None)))
            await front_ends.run()


def configured(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves the application in this process."""
    return configuration(
        app,
        most=settings.max_connections,
        patience=settings.header_timeout_s,
        on_refusal=app.state.service.metrics.count_refusal,
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


def check_certificate(settings: Settings) -> None:
    """ValueError, before anything is loaded, for a certificate or a key that cannot be served with."""
    if settings.tls_cert is None:
        return
    try:
        # Without a password, OpenSSL would ask a terminal for that of an encrypted key.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ValueError(
            f"--tls-cert {settings.tls_cert}, --tls-key {settings.tls_key}: {error}; give a PEM certificate chain and "
            "its key, not encrypted"
        ) from error


def _allow_open_files(count: int) -> None:
    """Let this process open so many, as far as it may: many systems give a process 1024 until it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if most < count:
        log.warning("--max-connections: the system allows %d open files (ulimit -Hn); %d may be needed", most, count)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
