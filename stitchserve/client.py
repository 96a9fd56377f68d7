"""The two clients: the same calls, and the I/O that they need."""

import asyncio
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, TypedDict, TypeVar, Unpack

import httpx

from stitchserve import calls
from stitchserve.budget import Budget, Terms
from stitchserve.calls import Call
from stitchserve.errors import Refused
from stitchserve.images import ImageLike, encoded
from stitchserve.results import Classification, Explanation, Status, Stitches
from stitchserve.retries import Retrying, Tries

Answer = TypeVar("Answer")

MARGIN = 2.0  # seconds for the way there and back, beside the deadline
CONNECTIONS = 100
PATIENCE = 30.0  # seconds for an answer where the request has no deadline
KEEP = 4.0  # seconds that a connection may idle: less than the server's 5, which would close it under our hands


class Limits(TypedDict, total=False):
    """A budget as numbers: FLOPs, milliseconds, percent; `stitch` pins one."""

    max_flops: float | None
    deadline_ms: float | None
    min_top1: float | None
    stitch: int | None


class Options(TypedDict, total=False):
    """How a client reaches its server; `timeout` and `margin` in seconds."""

    api_key: str | None
    retrying: Retrying
    timeout: float | None
    margin: float
    verify: ssl.SSLContext | bool
    connections: int


def _checked(url: str) -> str:
    """ValueError for what is no address of a server."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"url: {url[:100]!r} is no http:// or https:// address; give one as in http://127.0.0.1:8000")
    return url


class _Base:
    """What both clients know: how long to wait for an answer, and when to ask again."""

    def __init__(self, url: str, options: Options) -> None:
        self._retrying = options.get("retrying", Retrying())
        self._timeout, self._margin = options.get("timeout"), options.get("margin", MARGIN)
        key, most = options.get("api_key"), options.get("connections", CONNECTIONS)
        self._http_options: Mapping[str, Any] = {
            "base_url": _checked(url),
            "headers": {} if key is None else {"Authorization": f"Bearer {key}"},
            "verify": options.get("verify", True),
            "limits": httpx.Limits(max_connections=most, max_keepalive_connections=most, keepalive_expiry=KEEP),
        }

    def _request(self, call: Call[Any]) -> Mapping[str, Any]:
        """The arguments of httpx's `request`."""
        query = [*call.budget.query(), *call.query]
        return {"method": call.method, "url": call.path, "params": query, "timeout": self._limit(call), **call.body}

    def _limit(self, call: Call[Any]) -> float:
        """Seconds to wait for bytes: the client's own timeout, else the deadline and a margin for the way."""
        if self._timeout is not None:
            return self._timeout
        deadline = call.budget.deadline
        return PATIENCE if deadline is None else deadline + self._margin


class Client(_Base):
    """Asks one server, or the balancer before several. Connections are kept and shared: use it from any thread.

    `url` is the server's (`http://127.0.0.1:8000`), `api_key` the tenant's, `retrying` when a call is sent again.
    `timeout`, in seconds, bounds every wait for the server; without it that is the deadline and `margin`, or 30 s
    where there is no deadline. A deadline is each try's own. `verify` is httpx's: an SSLContext for a CA of your own.
    What goes wrong on the way or at the server is a StitchserveError; what cannot be sent, as no image or a path that
    cannot be read, raises ValueError, TypeError or OSError before anything is. Close it, or use it in a `with`.
    """

    def __init__(self, url: str, *, transport: httpx.BaseTransport | None = None, **options: Unpack[Options]) -> None:
        super().__init__(url, options)
        self._http = httpx.Client(transport=transport, **self._http_options)

    def classify(
        self,
        image: ImageLike,
        budget: Terms | None = None,
        *,
        top_k: int | None = None,
        nearest: bool = False,
        **limits: Unpack[Limits],
    ) -> Classification:
        """The likeliest classes of one image; with `nearest` also where no stitch can meet the budget."""
        return self._run(calls.classify(encoded(image), Budget.of(budget, **limits), top_k, nearest))

    def classify_batch(
        self,
        images: Iterable[ImageLike],
        budget: Terms | None = None,
        *,
        budgets: Sequence[Terms] | None = None,
        top_k: int | None = None,
        nearest: bool = False,
        **limits: Unpack[Limits],
    ) -> list[Classification | Refused]:
        """One result an image, in order: an answer, or the error that it alone met, which is not raised.

        `budgets` gives each image its own. What is sent again is the batch, where the whole of it was refused.
        """
        files = [encoded(image) for image in images]
        return self._run(calls.classify_batch(files, Budget.of(budget, **limits), budgets, top_k, nearest))

    def explain(self, budget: Terms | None = None, *, nearest: bool = False, **limits: Unpack[Limits]) -> Explanation:
        """The stitch that this budget would get now, and why."""
        return self._run(calls.explain(Budget.of(budget, **limits), nearest))

    def stitches(self, *, frontier: bool = False) -> Stitches:
        """The server's lookup table, or its frontier alone."""
        return self._run(calls.stitches(frontier))

    def status(self) -> Status:
        """What the server is doing."""
        return self._run(calls.status())

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, call: Call[Answer]) -> Answer:
        tries = Tries(call, self._retrying)
        while True:
            outcome: httpx.Response | httpx.RequestError
            try:
                outcome = self._http.request(**self._request(tries.call))
                if outcome.is_success:
                    return calls.answer(tries.call, outcome, tries.count)
            except httpx.RequestError as error:
                outcome = error
            time.sleep(tries.after(outcome))


class AsyncClient(_Base):
    """`Client` for asyncio; files are read and pictures encoded in a thread."""

    def __init__(
        self, url: str, *, transport: httpx.AsyncBaseTransport | None = None, **options: Unpack[Options]
    ) -> None:
        super().__init__(url, options)
        self._http = httpx.AsyncClient(transport=transport, **self._http_options)

    async def classify(
        self,
        image: ImageLike,
        budget: Terms | None = None,
        *,
        top_k: int | None = None,
        nearest: bool = False,
        **limits: Unpack[Limits],
    ) -> Classification:
        """As `Client.classify`."""
        file = await asyncio.to_thread(encoded, image)
        return await self._run(calls.classify(file, Budget.of(budget, **limits), top_k, nearest))

    async def classify_batch(
        self,
        images: Iterable[ImageLike],
        budget: Terms | None = None,
        *,
        budgets: Sequence[Terms] | None = None,
        top_k: int | None = None,
        nearest: bool = False,
        **limits: Unpack[Limits],
    ) -> list[Classification | Refused]:
        """As `Client.classify_batch`."""
        files = await asyncio.to_thread(lambda: [encoded(image) for image in images])
        return await self._run(calls.classify_batch(files, Budget.of(budget, **limits), budgets, top_k, nearest))

    async def explain(
        self, budget: Terms | None = None, *, nearest: bool = False, **limits: Unpack[Limits]
    ) -> Explanation:
        """As `Client.explain`."""
        return await self._run(calls.explain(Budget.of(budget, **limits), nearest))

    async def stitches(self, *, frontier: bool = False) -> Stitches:
        """As `Client.stitches`."""
        return await self._run(calls.stitches(frontier))

    async def status(self) -> Status:
        """As `Client.status`."""
        return await self._run(calls.status())

    async def aclose(self) -> None:
        """Let the connections go."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _run(self, call: Call[Answer]) -> Answer:
        tries = Tries(call, self._retrying)
        while True:
            outcome: httpx.Response | httpx.RequestError
            try:
                outcome = await self._http.request(**self._request(tries.call))
                if outcome.is_success:
                    return calls.answer(tries.call, outcome, tries.count)
            except httpx.RequestError as error:
                outcome = error
            await asyncio.sleep(tries.after(outcome))
