"""The HTTP server process: uvicorn, stopping in the order that loses no request."""

import asyncio
import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from server.app import create_app
from server.service import Service
from server.settings import Settings


class Server(uvicorn.Server):
    """Uvicorn that is first not ready, then refuses, then finishes what is in flight, and exits with 0."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service

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
        """The first signal drains, a second one leaves at once."""
        if self.service.draining:
            self.should_exit = self.force_exit = True
            return
        self.service.draining = True
        asyncio.get_running_loop().call_later(self.service.settings.drain_delay_s, self._refuse)

    def _refuse(self) -> None:
        self.service.refusing = self.should_exit = True


class Serve(Settings):
    """Answer images over HTTP. Every option is also an environment variable: --slo-ms is STITCHSERVE_SLO_MS."""

    def cli_cmd(self) -> None:
        """Serve until told to stop; returns when everything in flight is answered."""
        app = create_app(self)
        config = uvicorn.Config(
            app,
            host=self.host,
            port=self.port,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(self.drain_timeout_s),
        )
        Server(config, app.state.service).run()
