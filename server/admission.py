"""Who may come in: permits, held while a request is decoded, queued and run, or a refusal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from server.allowance import Allowed
from server.controller import Controller
from server.errors import Overloaded


class Limiter:
    """Refuses what would be late even at the cheapest stitches that budgets admit, and what there is no room for.

    At most `capacity` images are inside at once, whatever they cost; none comes in while `short` says that memory is.
    """

    def __init__(self, capacity: int, controller: Controller, short: Callable[[], bool] = lambda: False) -> None:
        self._capacity, self._controller, self._short = capacity, controller, short
        self.inside = 0
        self.floor = 0.0
        """Sum of the floors of those inside: seconds by the table at the cheapest stitches that their budgets admit."""

    @property
    def room(self) -> int:
        """How many more images may come in."""
        return self._capacity - self.inside

    def check(self, allowed: Allowed, slack: float, ahead: float, running: float, headroom: float = 1.0) -> None:
        """Raises Overloaded, with a time to come back, for a request that is better refused now.

        `slack`: seconds until its deadline; `ahead`: the sum of the floors of those that go before it; `running`:
        seconds for which the engine is busy.
        """
        self.check_room(running, headroom)
        needed = running + self._controller.drain_seconds(ahead + allowed.floor, headroom)
        # Whoever comes to an idle server is let in: how else would it learn that it is no longer slow?
        if needed > slack and (ahead or running):
            detail = (
                f"it would take {needed * 1e3:.0f} ms even with the cheapest stitches, more than the "
                f"{slack * 1e3:.0f} ms to the deadline; come back later, or allow more time"
            )
            raise Overloaded(detail, retry_after=needed)

    def check_room(self, running: float = 0.0, headroom: float = 1.0) -> None:
        """Raises Overloaded, with a time to come back, where no image may come in, whatever its deadline."""
        reason: Literal["memory", "full"]
        if self._short():
            detail, reason = "the machine is short of memory", "memory"
        elif self.room <= 0:
            detail, reason = f"{self.inside} images are inside the server, which is all it takes", "full"
        else:
            return
        drain = running + self._controller.drain_seconds(self.floor, headroom)
        raise Overloaded(f"{detail}; come back later", retry_after=drain, reason=reason)

    @contextmanager
    def admit(self, allowed: Allowed) -> Iterator[None]:
        """Holds a permit inside the block."""
        self.enter(allowed)
        try:
            yield
        finally:
            self.leave(allowed)

    def enter(self, allowed: Allowed) -> None:
        """Take a permit, after `check`."""
        self.inside += 1
        self.floor += allowed.floor

    def leave(self, allowed: Allowed) -> None:
        """Give a permit back."""
        self.inside -= 1
        # Empty, it starts from zero again, so that rounding does not add up.
        self.floor = self.floor - allowed.floor if self.inside else 0.0
