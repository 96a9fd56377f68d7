"""New requests take turns: few begin in a turn of the event loop, so that those inside do not wait for all who come."""

import asyncio
from collections import deque

EACH = 4
"""Requests that begin in one turn."""


class Turns:
    """Lets EACH requests begin in every turn of the event loop, in the order of their coming."""

    def __init__(self) -> None:
        self._begun = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Returns when it is the caller's turn: at once, unless others began in this one."""
        if not self._begun:
            asyncio.get_running_loop().call_soon(self._next)
        if self._begun < EACH and not self._waiting:
            self._begun += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn

    def _next(self) -> None:
        self._begun = 0
        while self._waiting and self._begun < EACH:
            turn = self._waiting.popleft()
            if not turn.done():  # else its request is gone
                turn.set_result(None)
                self._begun += 1
        if self._begun:
            asyncio.get_running_loop().call_soon(self._next)
