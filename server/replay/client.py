"""The load generator's HTTP client: keeps connections alive, waits for none, turns faults into replies.

aiohttp, because the generator must not be what is measured: of 3 kB bodies, 32 in flight, it sent 3,600 requests for
each second of CPU time where httpx sent 210. A bare asyncio protocol sent 13,000, and would be ours to maintain.
"""

import json
import resource
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypeVar

import aiohttp
from pydantic import BaseModel
from yarl import URL

from server.replay.bench import Ask, Reply
from server.replay.report import OK

Content = TypeVar("Content", bound=BaseModel)

KEEP_ALIVE = 4.0  # seconds; below uvicorn's 5, or it closes a connection while a request is under way to it
OWN_FILES = 64  # descriptors that are not connections


@dataclass(frozen=True)
class Body:
    """One request's body."""

    content: bytes
    content_type: str


@dataclass(frozen=True)
class Target:
    """Where requests go: the bodies in turn, each a POST to `url`; `read` makes a reply of a 2xx answer's content."""

    url: URL
    bodies: Sequence[Body]
    read: Callable[[bytes], Reply]
    headers: Mapping[str, str] = field(default_factory=dict)


def address(url: str) -> URL:
    """The URL, checked; ValueError."""
    parsed = URL(url)
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError(f"url {url!r}: give http://host:port")
    return parsed


def read_classification(content: bytes) -> Reply:
    """Reads an answer of POST /classify."""
    try:
        stitch = json.loads(content)["stitch"]
        top1 = stitch["top1"]
        return Reply(OK, int(stitch["id"]), None if top1 is None else top1 / 100, float(stitch["flops"]))
    except (ValueError, KeyError, TypeError):
        return Reply("unreadable")


def allow_connections(most: int) -> None:
    """Raises the process's limit on open files to hold `most` connections; ValueError where it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = most + OWN_FILES
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise ValueError(f"{most} in flight need {needed} open files, {hard} are allowed: fewer, or a higher ulimit -n")
    if soft != resource.RLIM_INFINITY and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


@asynccontextmanager
async def session(timeout: float) -> AsyncIterator[aiohttp.ClientSession]:
    """A client without a limit on connections, that gives a request up after `timeout` seconds."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE),
        timeout=aiohttp.ClientTimeout(total=timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as opened:
        yield opened


def asking(client: aiohttp.ClientSession, target: Target) -> Ask:
    """Sends the target's requests. What goes wrong on the way becomes a reply whose status says so."""
    headers = [dict(target.headers) | {"Content-Type": body.content_type} for body in target.bodies]

    async def ask(index: int) -> Reply:
        turn = index % len(target.bodies)
        try:
            async with client.post(target.url, data=target.bodies[turn].content, headers=headers[turn]) as response:
                content = await response.read()
        except TimeoutError:
            return Reply("timeout")
        except aiohttp.ClientConnectorError:
            return Reply("no connection")
        except aiohttp.ClientError:
            return Reply("disconnected")
        return target.read(content) if response.ok else Reply(str(response.status))

    return ask


async def check(client: aiohttp.ClientSession, target: Target) -> None:
    """Sends one request; ValueError if the server finds fault with it, so that a replay would be of refusals alone."""
    body = target.bodies[0]
    headers = dict(target.headers) | {"Content-Type": body.content_type}
    try:
        async with client.post(target.url, data=body.content, headers=headers) as response:
            text = await response.text(errors="replace")
    except (aiohttp.ClientError, TimeoutError) as error:
        raise ValueError(f"{target.url} does not answer: {str(error) or type(error).__name__}") from None
    if response.status in range(400, 500) and response.status != HTTPStatus.TOO_MANY_REQUESTS:
        raise ValueError(f"{target.url} refuses the request with {response.status}: {text[:300]!a}")


async def fetch(client: aiohttp.ClientSession, url: URL, model: type[Content]) -> Content:
    """What a GET of `url` holds; ValueError if it is no such thing."""
    try:
        async with client.get(url, raise_for_status=True) as response:
            return model.model_validate_json(await response.read())
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{url}: {reason}; is it stitchserve and running? --peer is for other servers") from None
