"""The load generator's HTTP client: keeps connections alive, waits for none, turns faults into replies.

aiohttp, because the generator must not be what is measured: for each second of its CPU time it sends 4,300 requests,
httpx 210, and a bare protocol, which would be ours to maintain, 20,000 (benchmarks/clients, 32 in flight).
"""

import json
import resource
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError
from yarl import URL

from server.replay.bench import Ask, Reply
from server.replay.report import OK

Content = TypeVar("Content", bound=BaseModel)

KEEP_ALIVE = 4.0  # seconds; below uvicorn's 5, or it closes a connection while a request is under way to it
FETCH_TIMEOUT = 10.0  # seconds
OWN_FILES = 64  # descriptors that are not connections


@dataclass(frozen=True)
class Body:
    """One request's body."""

    content: bytes
    content_type: str


@dataclass(frozen=True)
class Target:
    """Where requests go: the bodies in turn, each a POST to `url`, given up after `timeout` seconds.

    `read` makes a reply of a 2xx answer's content.
    """

    url: URL
    bodies: Sequence[Body]
    read: Callable[[bytes], Reply]
    timeout: float
    headers: Mapping[str, str] = field(default_factory=dict)

    def post(self, client: aiohttp.ClientSession, index: int) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Sends the request of this index."""
        body = self.bodies[index % len(self.bodies)]
        headers = {**self.headers, "Content-Type": body.content_type}
        return client.post(self.url, data=body.content, headers=headers, timeout=aiohttp.ClientTimeout(self.timeout))


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
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A client without a limit on connections."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE),
        timeout=aiohttp.ClientTimeout(total=FETCH_TIMEOUT),
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as opened:
        yield opened


def asking(client: aiohttp.ClientSession, target: Target) -> Ask:
    """Sends the target's requests. What goes wrong on the way becomes a reply whose status says so."""

    async def ask(index: int) -> Reply:
        try:
            async with target.post(client, index) as response:
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
    try:
        async with target.post(client, 0) as response:
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
    except (aiohttp.ClientError, TimeoutError, ValidationError) as error:
        unlike = f"not a {model.__name__}" if isinstance(error, ValidationError) else ""
        reason = unlike or str(error) or type(error).__name__
        raise ValueError(f"{url}: {reason}; is it stitchserve and running? --peer is for other servers") from None
