"""Uvicorn as every process that speaks HTTP runs it: with our connections, leaving nobody without an answer."""

import asyncio
import math
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import uvicorn

from server.connection import Connection
from server.listening import waiting
from server.refused import Doorman


class Leaving(uvicorn.Server):
    """Uvicorn that lets in who has reached its sockets before it closes them; the process's signals are not its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield

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


def configuration(
    app: Callable[..., Any],
    *,
    most: int,
    patience: float,
    on_refusal: Callable[[int], object],
    doorman: Doorman = lambda *_: None,
    drain: float,
    proxies: Sequence[str] = (),
    cert: Path | str | None = None,
    key: Path | str | None = None,
    lifespan: bool = True,
) -> uvicorn.Config:
    """How uvicorn serves an application: as `Connection` has it, and at the end for `drain` seconds at most.

    `proxies` are addresses whose headers say who a client is; `cert` and `key` are for HTTPS.
    """
    return uvicorn.Config(
        app,
        # All that is asked of a protocol's class is to be called.
        http=cast(
            type[asyncio.Protocol],
            partial(Connection, most=most, patience=patience, on_refusal=on_refusal, doorman=doorman),
        ),
        ws="none",
        lifespan="on" if lifespan else "off",
        access_log=False,  # ours has no queries
        log_config=None,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
        ssl_certfile=cert,
        ssl_keyfile=key,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(drain),
    )
