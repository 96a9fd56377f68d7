"""What an answer costs besides HTTP, decoding and the engine: at the gate, and by way of FastAPI, in turns.

    python -m benchmarks.served.gate [--rounds 5] [--seconds 3] [--at-once 16]

The application is called as uvicorn calls it, with an engine and a decoder that do nothing (benchmarks.peers.nothing).
Prints microseconds of this process's time for each answer.
"""

import argparse
import asyncio
import time
from copy import copy
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from benchmarks.peers import nothing
from server import service
from server.app import application
from server.connection import LEFT, UNREAD
from server.engine import Engine
from server.gate import Gate
from server.service import build
from server.settings import Settings

SAMPLE = Path(__file__).parents[2] / "checkpoints" / "samples" / "00.jpg"


async def ask(app: FastAPI, body: bytes) -> None:
    """One request to its end."""
    parts, left, said = [{"type": "http.request", "body": body, "more_body": False}], asyncio.Event(), []

    async def receive() -> dict[str, Any]:
        if parts:
            return parts.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/classify",
        "raw_path": b"/classify",
        "query_string": b"stitch=0&deadline_ms=10000",
        "root_path": "",
        "headers": [(b"host", b"x"), (b"content-type", b"image/jpeg"), (b"content-length", b"%d" % len(body))],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {UNREAD: bool, LEFT: set()},
    }
    await app(scope, receive, send)
    assert said[0]["status"] == 200, said


async def cost(app: FastAPI, seconds: float, at_once: int) -> float:
    """Seconds of processor time for an answer."""
    body, count, ends = SAMPLE.read_bytes(), 0, time.monotonic() + seconds

    async def one_after_the_other() -> None:
        nonlocal count
        while time.monotonic() < ends:
            await ask(app, body)
            count += 1

    began = time.process_time()
    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    return (time.process_time() - began) / count


async def main(options: argparse.Namespace) -> None:
    """All rounds."""
    Engine.run = nothing.run
    service.decode = nothing.decode
    serving = build(Settings(threads=1))
    gated = application(serving)
    plain = copy(gated)
    plain.user_middleware = [each for each in plain.user_middleware if each.cls is not Gate]
    async with gated.router.lifespan_context(gated):
        for _ in range(options.rounds):
            for name, app in (("gate", gated), ("FastAPI", plain)):
                print(f"{name}: {await cost(app, options.seconds, options.at_once) * 1e6:.0f} us", end="  ")
            print(flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--at-once", type=int, default=16)
    asyncio.run(main(parser.parse_args()))
