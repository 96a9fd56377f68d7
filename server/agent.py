"""HAProxy's agent check: who connects is told whether to send requests, and which share of the usual number of them."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from server.listening import addresses
from server.service import Service

log = logging.getLogger(__name__)


def state(service: Service) -> str:
    """One line in the words of HAProxy's `agent-check`: `ready up 60%`, `drain` or `down`."""
    if service.draining:
        return "drain"
    if not service.ready():
        return "down"
    return f"ready up {max(1, round(100 * service.speed()))}%"  # at 0 % it would never be asked, nor learn, again


@asynccontextmanager
async def answering(sockets: list[socket.socket], service: Service) -> AsyncIterator[None]:
    """Tells everybody who connects to these sockets the state, and ends the connection."""

    async def tell(_: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        client.write(state(service).encode() + b"\n")
        client.close()

    async with AsyncExitStack() as closing:
        for each in sockets:
            await closing.enter_async_context(await asyncio.start_server(tell, sock=each))
        where = [address.partition("//")[2] for address in addresses(sockets)]
        log.info("telling balancers on %s", " ".join(where))
        yield
