"""Who may come in: permits, held while a request is decoded, queued and run, or a refusal."""

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from typing import Literal

from server.allowance import Allowed
from server.controller import Controller
from server.errors import Overloaded
from server.tenants import ANYONE, Tenant, share

SPARED = 0.15
"""Part of the time before a deadline that whoever is above its share leaves to the others inside."""
MOST = 2
"""Times the capacity that may be inside when one tenant holds all places and others come within their shares."""


class _Held:
    """What one tenant has inside: when its images are due, ascending, and the sum of their floors."""

    def __init__(self) -> None:
        self.due: list[float] = []
        self.floor = 0.0

    def before(self, deadline: float) -> float:
        """The floors of those due until then, taking all for alike."""
        return self.floor * bisect_right(self.due, deadline) / len(self.due)


class Limiter:
    """Refuses what would be late even at the cheapest stitches that budgets admit, and what there is no room for.

    At most `capacity` images are inside at once, whatever they cost; none comes in while `short` says that memory is.
    Where there is not enough time or room for all tenants inside, each has a share by its weight: whoever is within
    its own comes in all the same, and others have to leave the queue for it (`shedding.py`).
    """

    def __init__(self, capacity: int, controller: Controller, short: Callable[[], bool] = lambda: False) -> None:
        self._capacity, self._controller, self._short = capacity, controller, short
        self._held: dict[Tenant, _Held] = {}
        self.inside = 0
        self.floor = 0.0
        """Sum of the floors of those inside: seconds by the table at the cheapest stitches that their budgets admit."""

    @property
    def room(self) -> int:
        """How many more images may come in."""
        return self._capacity - self.inside

    def check(
        self,
        allowed: Allowed,
        slack: float,
        ahead: float,
        running: float,
        headroom: float = 1.0,
        *,
        tenant: Tenant = ANYONE,
        due: float = math.inf,
    ) -> None:
        """Raises Overloaded, with a time to come back, for a request that is better refused now.

        `slack`: seconds until it is `due`; `ahead`: the sum of the floors of those that go before it; `running`:
        seconds for which the engine is busy.
        """
        self.check_room(running, headroom, tenant)
        work = ahead + allowed.floor
        drain = self._controller.drain_seconds(work, headroom)
        needed = running + drain
        # Whoever comes to an idle server is let in: how else would it learn that it is no longer slow?
        if needed <= (slack if self._alone(tenant) else (1 - SPARED) * slack) or not (ahead or running):
            return
        if self._entitled(allowed, ahead, work * (slack - running) / drain, tenant, due):
            return
        detail = (
            f"it would take {needed * 1e3:.0f} ms even with the cheapest stitches, more than the "
            f"{slack * 1e3:.0f} ms to the deadline; come back later, or allow more time"
        )
        self._controller.turn_away()
        raise Overloaded(detail, retry_after=needed)

    def check_room(self, running: float = 0.0, headroom: float = 1.0, tenant: Tenant = ANYONE) -> None:
        """Raises Overloaded, with a time to come back, where no image may come in, whatever its deadline."""
        reason: Literal["memory", "full"]
        if self._short():
            detail, reason = "the machine is short of memory", "memory"
        elif self.room <= 0 and not self._has_place(tenant):
            detail, reason = f"{self.inside} images are inside the server, which is all it takes", "full"
        else:
            return
        drain = running + self._controller.drain_seconds(self.floor, headroom)
        self._controller.turn_away()
        raise Overloaded(f"{detail}; come back later", retry_after=drain, reason=reason)

    def _alone(self, tenant: Tenant) -> bool:
        return not self._held or (len(self._held) == 1 and tenant in self._held)

    def _has_place(self, tenant: Tenant) -> bool:
        """Whether a tenant may have one more image inside though all places are taken."""
        if self._alone(tenant) or self.inside >= MOST * self._capacity:
            return False
        mine = self._held.get(tenant)
        return len(mine.due if mine else ()) < self._capacity * share(tenant, self._held)

    def _entitled(self, allowed: Allowed, ahead: float, time: float, tenant: Tenant, due: float) -> bool:
        """Whether a tenant has so little before a request that this is within its share, whatever others have.

        `time` is until it is `due`, as the sum of floors for which that is enough.
        """
        before = {each: held.before(due) for each, held in self._held.items()}
        scale = ahead / (sum(before.values()) or 1.0)  # some of it may run already
        mine = before.pop(tenant, 0.0) * scale
        others = [each for each, work in before.items() if work]
        return bool(others) and mine + allowed.floor <= time and mine < time * share(tenant, others)

    def admit(self, allowed: Allowed, tenant: Tenant = ANYONE, due: float = math.inf) -> "Permit":
        """For a `with` block: a permit is held inside it."""
        return Permit(self, allowed, tenant, due)

    def enter(self, allowed: Allowed, tenant: Tenant = ANYONE, due: float = math.inf) -> None:
        """Take a permit, after `check`."""
        self.inside += 1
        self.floor += allowed.floor
        held = self._held.get(tenant)
        if held is None:
            held = self._held[tenant] = _Held()
        insort(held.due, due)
        held.floor += allowed.floor

    def leave(self, allowed: Allowed, tenant: Tenant = ANYONE, due: float = math.inf) -> None:
        """Give a permit back."""
        self.inside -= 1
        # Empty, it starts from zero again, so that rounding does not add up.
        self.floor = self.floor - allowed.floor if self.inside else 0.0
        held = self._held[tenant]
        del held.due[bisect_left(held.due, due)]
        held.floor -= allowed.floor
        if not held.due:
            del self._held[tenant]


class Permit:
    """One image's, held from `with` on."""

    def __init__(self, limiter: Limiter, allowed: Allowed, tenant: Tenant, due: float) -> None:
        self._limiter, self._holder = limiter, (allowed, tenant, due)

    def __enter__(self) -> None:
        self._limiter.enter(*self._holder)

    def __exit__(self, *_: object) -> None:
        self._limiter.leave(*self._holder)
