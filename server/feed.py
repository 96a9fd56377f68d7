"""What the server is doing, told once a second to whoever looks: nothing is read while nobody does."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress

from server.errors import Draining, Unavailable

EVERY = 1.0  # seconds from one event to the next, which also tells a client that the server still lives
MOST = 64  # who may look at once
KEPT = 180  # events that one who comes later is told of


class Feed:
    """One reading a second, shared by all who look; `read` gives it as one line of JSON.

    It runs from the first who looks to the last. One who does not keep up misses readings rather than keeping them.
    All methods belong to the event loop.
    """

    def __init__(self, read: Callable[[], str], *, every: float = EVERY, most: int = MOST) -> None:
        self._read, self._every, self._most = read, every, most
        self._kept: deque[str] = deque(maxlen=KEPT)
        self._turn = asyncio.Event()
        self._ended = False
        self._ticking: asyncio.Task[None] | None = None
        self.watching = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place to look from; raises Unavailable where there is none, Draining after `end`."""
        if self._ended:
            raise Draining("the server is stopping")
        if self.watching >= self._most:
            raise Unavailable(f"{self._most} look at this server already; come back later", retry_after=10.0)
        self.watching += 1
        try:
            if self._ticking is None:
                self._ticking = asyncio.create_task(self._tick())
            yield
        finally:
            self.watching -= 1
            if not self.watching and self._ticking:
                self._ticking.cancel()
                self._ticking = None

    async def events(self) -> AsyncIterator[str]:
        """Server-sent events: `history`, a list of the readings that are kept, then each one; until `end`."""
        yield f"retry: 3000\nevent: history\ndata: [{','.join(self._kept)}]\n\n"
        while not self._ended:
            await self._turn.wait()
            if not self._ended:
                yield f"data: {self._kept[-1]}\n\n"

    def end(self) -> None:
        """Let all who look go, and nobody look again."""
        self._ended = True
        self._turn.set()

    async def _tick(self) -> None:
        with suppress(asyncio.CancelledError):
            while not self._ended:
                self._kept.append(self._read())
                waking, self._turn = self._turn, asyncio.Event()
                waking.set()
                await asyncio.sleep(self._every)
