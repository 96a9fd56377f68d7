"""Where one request's time went, and the refusal when it was too much."""

from collections.abc import Callable
from typing import Literal

from server.errors import DeadlinePassed

Stage = Literal["receive", "decode_wait", "decode", "queue"]

_DOING: dict[Stage, str] = {
    "receive": "receiving the body",
    "decode_wait": "waiting for a thread that decodes",
    "decode": "decoding",
    "queue": "waiting for the engine",
}
_REMEDY: dict[Stage, str] = {
    "receive": "send a smaller file",
    "decode_wait": "come back when the server is less busy",
    "decode": "send a smaller picture",
    "queue": "come back when the server is less busy",
}


class Stages:
    """Seconds of one request in each stage so far. It `arrived` by `clock`, and `limit` seconds later it is late.

    To be used by one thread at a time.
    """

    def __init__(self, clock: Callable[[], float], arrived: float, limit: float) -> None:
        self.arrived, self.limit = arrived, limit
        self._clock, self._last = clock, arrived
        self.seconds: dict[Stage, float] = dict.fromkeys(_DOING, 0.0)

    @property
    def deadline(self) -> float:
        """When it is late, by the clock."""
        return self.arrived + self.limit

    def end(self, stage: Stage, at: float | None = None) -> None:
        """Count the time since the last end to this stage, which ended now, or `at` a moment before by the clock.

        Raises DeadlinePassed where it is too late for the next.
        """
        now = self._clock() if at is None else at
        self.seconds[stage] += now - self._last
        self._last = now
        if now >= self.deadline:
            raise self._passed()

    def _passed(self) -> DeadlinePassed:
        longest = max(self.seconds, key=lambda stage: self.seconds[stage])
        waited = self.seconds["decode_wait"] + self.seconds["queue"]
        spent = ", ".join(f"{self.seconds[stage] * 1e3:.0f} ms {doing}" for stage, doing in _DOING.items())
        return DeadlinePassed(
            f"the deadline of {self.limit * 1e3:g} ms passed, mostly {_DOING[longest]}: {spent}; "
            f"allow more with `deadline_ms`, or {_REMEDY[longest]}",
            stage="queue" if longest == "decode_wait" else longest,
            receive_ms=round(self.seconds["receive"] * 1e3, 3),
            decode_ms=round(self.seconds["decode"] * 1e3, 3),
            queue_ms=round(waited * 1e3, 3),
        )
