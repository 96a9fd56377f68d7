"""How many requests an HTTP client can send for each second of its CPU time: httpx, aiohttp, a bare asyncio protocol.

    python benchmarks/clients/clients.py [--rounds 5]

The load generator must not be what is measured. Each client POSTs bodies of 3 kB to a server in another process, 4 or
32 always in flight, and parses the JSON of the answer. CPU time, not wall time: what else runs on the machine matters
little. Clients take turns; printed is the median of the rounds and their range.
"""

import argparse
import asyncio
import json
import multiprocessing
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from multiprocessing.connection import Connection
from statistics import median

import aiohttp
import httpx

BODY = bytes(3000)
ANSWER = json.dumps({"predictions": [{"label": "17", "probability": 0.76}] * 5, "stitch": {"id": 1, "top1": 84.75}})
REPLY = f"HTTP/1.1 200 OK\r\nContent-Length: {len(ANSWER)}\r\n\r\n{ANSWER}".encode()
REQUESTS = {"httpx": 1000, "aiohttp": 4000, "bare": 4000}

Send = Callable[[], Awaitable[bytes]]
Client = Callable[[int], AbstractAsyncContextManager[Send]]


class Answering(asyncio.Protocol):
    """Answers every request with REPLY."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.received = transport, b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        _, end, body = self.received.partition(b"\r\n\r\n")
        if end and len(body) == len(BODY):
            self.received = b""
            self.transport.write(REPLY)  # type: ignore[attr-defined]


async def serve(tell: Connection) -> None:
    """Listen, and tell the port."""
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
    tell.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def serve_forever(tell: Connection) -> None:
    asyncio.run(serve(tell))


@asynccontextmanager
async def with_httpx(port: int) -> AsyncIterator[Send]:
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None)) as client:

        async def send() -> bytes:
            return (await client.post(f"http://127.0.0.1:{port}/classify", content=BODY)).content

        yield send


@asynccontextmanager
async def with_aiohttp(port: int) -> AsyncIterator[Send]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:

        async def send() -> bytes:
            async with client.post(f"http://127.0.0.1:{port}/classify", data=BODY) as response:
                return await response.read()

        yield send


class Bare(asyncio.Protocol):
    """One request at a time over one connection; trusts the server to answer in one piece."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.answer.set_result(data.partition(b"\r\n\r\n")[2])

    async def send(self) -> bytes:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n"
        self.transport.write(head.encode() + BODY)  # type: ignore[attr-defined]
        return await self.answer


@asynccontextmanager
async def with_bare(port: int) -> AsyncIterator[Send]:
    idle: list[Bare] = []

    async def send() -> bytes:
        if not idle:
            idle.append((await asyncio.get_running_loop().create_connection(Bare, "127.0.0.1", port))[1])
        connection = idle.pop()
        answer = await connection.send()
        idle.append(connection)
        return answer

    yield send
    for connection in idle:
        connection.transport.close()


CLIENTS: dict[str, Client] = {"httpx": with_httpx, "aiohttp": with_aiohttp, "bare": with_bare}


async def per_cpu_second(name: str, port: int, in_flight: int) -> float:
    """Requests for each second of this process's CPU time."""
    left = iter(range(REQUESTS[name]))

    async def worker(send: Send) -> None:
        for _ in left:
            json.loads(await send())

    async with CLIENTS[name](port) as send:
        began = time.process_time()
        await asyncio.gather(*(worker(send) for _ in range(in_flight)))
        return REQUESTS[name] / (time.process_time() - began)


def main(rounds: int) -> None:
    """Print a line for each client."""
    hear, tell = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.get_context("spawn").Process(target=serve_forever, args=(tell,), daemon=True)
    server.start()
    port = hear.recv()
    for in_flight in (4, 32):
        found: dict[str, list[float]] = {name: [] for name in CLIENTS}
        for _ in range(rounds):
            for name, rates in found.items():
                rates.append(asyncio.run(per_cpu_second(name, port, in_flight)))
        for name, rates in found.items():
            print(f"{in_flight:3} in flight  {name:8} {median(rates):7.0f} ({min(rates):.0f} to {max(rates):.0f})")
    server.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    main(parser.parse_args().rounds)
