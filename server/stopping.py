"""Told to stop: first not ready, then refusing, then finishing what is in flight."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from server.service import Service

log = logging.getLogger(__name__)


class Stopping:
    """The way a service's process leaves. `unanswered` counts requests; `finish` lets nobody else in, and then ends."""

    def __init__(self, service: Service, unanswered: Callable[[], int], finish: Callable[[], object]) -> None:
        self._service, self._unanswered, self._finish = service, unanswered, finish

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Handle SIGTERM and SIGINT; unlike uvicorn's own way, nothing raises them again at the end: exit with 0."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.told)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def told(self) -> None:
        """The first time drains; a second time leaves at once, and so does the first where nothing can be answered."""
        if self._service.draining or not self._service.healthy():
            log.warning("leaving at once, with %d requests unanswered", self._unanswered())
            logging.shutdown()
            # Not by way of the event loop: it would tell of every request that is cut off, and wait for the batch.
            os._exit(0)
        self._service.draining = True
        delay = self._service.settings.drain_delay_s
        log.info("told to stop: not ready, still serving for %g s", delay)
        asyncio.get_running_loop().call_later(delay, self._refuse)

    def _refuse(self) -> None:
        log.info("refusing new requests, finishing %d", self._unanswered())
        self._service.refuse()
        self._finish()
        self._service.gone_by = self._service.clock() + self._service.settings.drain_timeout_s
