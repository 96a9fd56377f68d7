"""The front ends of one engine's process: started, told to stop, and started again where one dies."""

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from fastapi import FastAPI

from server.attached import LENT, Attached
from server.doorman import doorman
from server.frontend import Given
from server.images import Limits
from server.service import Service
from server.shared import Shared

log = logging.getLogger(__name__)

SPARE_PLACES = 2  # for pictures that are on their way while threads decode the next
SHORT_LIFE, MOST_DEATHS = 5.0, 5  # so many in a row that lived less than these seconds: it cannot work
PAUSE = 0.2  # seconds before a front end is started again, times how many died in a row
LAST = 5.0  # seconds more than requests have, in which front ends must have gone


class FrontEnds:
    """`count` processes on these sockets, which speak HTTP for the application and decode for the service."""

    def __init__(self, app: FastAPI, service: Service, sockets: list[socket.socket], count: int) -> None:
        self._app, self._service, self._sockets, self._count = app, service, sockets, count
        self._doorman = doorman(app)
        self._alive: dict[Attached, subprocess.Popen[bytes]] = {}
        self._admitting = self._stopping = False
        self.deaths = 0
        """Front ends that ended without having been told to."""
        service.metrics.gauge("frontends", "Processes that speak HTTP", lambda: float(len(self._alive)))
        service.metrics.count("frontend_deaths", "Front ends that died and were replaced", lambda: float(self.deaths))

    @property
    def unanswered(self) -> int:
        """Requests in flight."""
        return sum(len(front.open) for front in self._alive)

    async def run(self) -> None:
        """Until `stop`, and all is answered. ChildProcessError where they die as fast as they are started."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._count):
                    group.create_task(self._keep_one())
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    def admit(self) -> None:
        """Let clients in; until then processes start, but do not listen."""
        self._admitting = True
        for front in self._alive:
            front.admit()

    def stop(self) -> None:
        """Let nobody else in, and end when all are answered, or their time is over."""
        self._stopping = True
        most = self._service.settings.drain_timeout_s + LAST
        asyncio.get_running_loop().call_later(most, self._kill)
        for opened in self._sockets:
            opened.close()
        for front in self._alive:
            front.stop()

    def _kill(self) -> None:
        for process in self._alive.values():
            process.kill()

    async def _keep_one(self) -> None:
        loop, in_a_row = asyncio.get_running_loop(), 0
        while not self._stopping:
            since = loop.time()
            try:
                code = await self._one()
            except OSError as error:  # there is no more room for a process, or for its files
                log.error("a front end cannot be started: %s", error)
                code = -1
            if self._stopping:
                return
            self.deaths += 1
            in_a_row = in_a_row + 1 if loop.time() - since < SHORT_LIFE else 1
            log.error("a front end ended with %d; its connections are lost, another one is started", code)
            if in_a_row == MOST_DEATHS:
                raise ChildProcessError(f"front ends do not stay alive: the last ended with {code}; the log says why")
            await asyncio.sleep(PAUSE * in_a_row)

    async def _one(self) -> int:
        """A front end's life -> its exit code."""
        with self._started() as (process, front):
            await asyncio.get_running_loop().create_unix_connection(lambda: front.channel, sock=front.socket)
            if self._admitting:
                front.admit()
            if self._stopping:
                front.stop()
            await front.gone.wait()
            try:
                return await asyncio.to_thread(process.wait, LAST)
            except subprocess.TimeoutExpired:
                process.kill()
                return process.wait()

    @contextmanager
    def _started(self) -> Iterator[tuple[subprocess.Popen[bytes], Attached]]:
        settings, family = self._service.settings, self._service.table.family
        ours, theirs = socket.socketpair()
        places = LENT + settings.decode_threads + SPARE_PLACES
        memory = Shared.create(family.preprocessing.size, places)
        given = Given(
            listening=[opened.fileno() for opened in self._sockets],
            channel=theirs.fileno(),
            memory=memory.file,
            size=memory.size,
            places=places,
            preprocessing=asdict(family.preprocessing),
            limits=asdict(Limits(settings.max_bytes, settings.max_pixels)),
            exact=settings.decode == "exact",
            threads=settings.decode_threads,
            connections=max(1, settings.max_connections // self._count),
            patience=settings.header_timeout_s,
            drain=settings.drain_timeout_s,
            proxies=list(settings.forwarded_allow_ips),
            cert=str(settings.tls_cert) if settings.tls_cert else None,
            key=str(settings.tls_key) if settings.tls_key else None,
            log_format=settings.log_format,
        )
        # Of this package, whatever lies in the working directory; Ctrl-C is for the engine's process.
        command = [sys.executable, "-P", "-m", "server.frontend", given.said()]
        found = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"PYTHONPATH": found}
        with theirs:
            files = [*given.listening, given.channel, given.memory]
            process = subprocess.Popen(command, env=environment, pass_fds=files, process_group=0)  # noqa: S603 - this program
        front = Attached(self._app, self._service, memory, ours, self._doorman)
        self._alive[front] = process
        self._service.helpers.add(process.pid)
        try:
            yield process, front
        finally:
            self._service.helpers.discard(process.pid)
            self._alive.pop(front)
            memory.close()
            if process.poll() is None:
                process.kill()
                process.wait()
