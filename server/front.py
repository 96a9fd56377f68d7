"""What stands between a request and the engine: HTTP, threads that decode, and the event loop's other work."""

from collections.abc import Callable
from typing import Self

WEIGHT = 0.05
DEVIATIONS = 1.0
LARGEST = 4.0  # times the usual that one image counts at most: a large photograph says little about the next
UNSEEN, MOST_UNSEEN = 0.1, 0.02
"""Part of a deadline, and seconds, left for what is not seen here: the way to the client and back."""
MOST_AFTER = 0.8
"""Part of the time to a deadline that is left at most; else, after a stall, nobody would be answered to tell better."""


def unseen(slack: float) -> float:
    """Of so many seconds to a deadline those that are left for the way to the client and back."""
    return min(UNSEEN * slack, MOST_UNSEEN)


class Front:
    """Images on their way to the queue: how many, and the seconds from one to the next that gets there."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._since = clock, 0.0
        self.coming = 0
        """Images that the doorman let pass and whose turn at the gate has not come."""
        self.inside = 0
        self.seconds = 0.0
        self._reply = self._deviation = 0.0

    @property
    def wait(self) -> float:
        """Seconds until one more would get to the queue."""
        return (self.inside + 1) * self.seconds

    @property
    def reply(self) -> float:
        """Seconds from the end of its batch to an answer, with their deviation on top, as TCP estimates round trips."""
        return self._reply + DEVIATIONS * self._deviation

    def after(self, slack: float) -> float:
        """Seconds that a client, whose deadline is `slack` away, waits for its answer from the end of the batch on."""
        return min(unseen(slack) + self.reply, MOST_AFTER * slack)

    def passing(self) -> Self:
        """For a `with` block: an image is on its way inside it."""
        return self

    def __enter__(self) -> None:
        if not self.inside:
            self._since = self._clock()
        self.inside += 1

    def __exit__(self, *_: object) -> None:
        self.inside -= 1
        self._learn()

    def answered(self, seconds: float) -> None:
        """Learn what an answer takes from the end of its batch on."""
        self._deviation += WEIGHT * (abs(seconds - self._reply) - self._deviation)
        self._reply += WEIGHT * (seconds - self._reply)

    def _learn(self) -> None:
        now = self._clock()
        seconds, self._since = now - self._since, now
        most = LARGEST * self.seconds or seconds
        self.seconds += WEIGHT * (min(seconds, most) - self.seconds) if self.seconds else seconds
