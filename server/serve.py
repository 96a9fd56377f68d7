"""The HTTP server process: uvicorn, stopping in the order that loses no request."""

import asyncio
import gc
import logging
import math
import os
import resource
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from functools import partial
from importlib.metadata import version
from pkgutil import resolve_name
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI

from server import logs
from server.app import Beside, create_app
from server.connection import Connection
from server.listening import addresses, bound, listen, waiting
from server.service import Service
from server.settings import Settings

log = logging.getLogger(__name__)

OTLP = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
OTHER_FILES = 100  # open files beside the connections: the model's, the log's, ...


class Server(uvicorn.Server):
    """Uvicorn that is first not ready, then refuses, then finishes what is in flight, and exits with 0."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say where; uvicorn says it of sockets that it has bound itself."""
        await super().startup(sockets)
        log.info("serving on %s", " ".join(addresses(sockets or [], tls=self.config.is_ssl)))

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGTERM and SIGINT here; unlike uvicorn's own, do not raise them again at the end: exit with 0."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """The first signal drains; a second one leaves at once, and so does the first where nothing can be answered."""
        if self.service.draining or not self.service.healthy():
            log.warning("leaving at once, with %d requests unanswered", len(self.server_state.tasks))
            logging.shutdown()
            # Not by way of the event loop: it would tell of every request that is cut off, and wait for the batch.
            os._exit(0)
        self.service.draining = True
        log.info("told to stop: not ready, still serving for %g s", self.service.settings.drain_delay_s)
        asyncio.get_running_loop().call_later(self.service.settings.drain_delay_s, self._refuse)

    def _refuse(self) -> None:
        log.info("refusing new requests, finishing %d", len(self.server_state.tasks))
        self.service.refuse()
        self.should_exit = True
        self.service.gone_by = self.service.clock() + self.service.settings.drain_timeout_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does, which closes the sockets; first whoever has reached them is let in, to be answered."""
        clients = [client for each in sockets or [] for client in waiting(each)]
        for server in self.servers:
            server.close()  # now: whoever came between would be sent away without a word
        telling = asyncio.create_task(self._let_in(clients))
        await super().shutdown(sockets)
        await telling

    async def _let_in(self, clients: list[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        for client in clients:
            await loop.connect_accepted_socket(self._connection, client, ssl=self.config.ssl)
        for connection in list(self.server_state.connections):  # these, and who came in the same moment
            connection.shutdown()

    def _connection(self) -> asyncio.Protocol:
        kind = cast(Callable[..., asyncio.Protocol], self.config.http_protocol_class)
        return kind(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


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
            Server(configuration(app, self), app.state.service).run(sockets)
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


def configuration(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves the application."""
    protocol = partial(
        Connection,
        most=settings.max_connections,
        patience=settings.header_timeout_s,
        on_refusal=app.state.service.metrics.count_refusal,
    )
    return uvicorn.Config(
        app,
        http=cast(type[asyncio.Protocol], protocol),  # all that is asked of it is to be called
        ws="none",
        lifespan="on",
        access_log=False,  # ours has no queries
        log_config=None,
        proxy_headers=bool(settings.forwarded_allow_ips),
        forwarded_allow_ips=list(settings.forwarded_allow_ips),
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout_s),
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
