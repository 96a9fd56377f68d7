"""What stands between a request and the engine: HTTP, threads that decode, and the event loop's other work."""

from asyncio import CancelledError
from collections.abc import Callable
from typing import Self

from server.errors import DeadlinePassed
from server.rates import Bucket, Rate

WEIGHT = 0.05
DEVIATIONS = 1.0
LARGEST = 4.0  # times the usual that one image counts at most: a large photograph says little about the next
UNSEEN, MOST_UNSEEN = 0.1, 0.02
"""Part of a deadline, and seconds, left for what is not seen here: the way to the client and back."""
MOST_AFTER = 0.8
"""Part of the time to a deadline that is left at most; else, after a stall, nobody would be answered to tell better."""

AT_ONCE = Rate(per_second=1000, burst=16)
"""So many refusals leave at once: clients that come back as soon as they are refused would leave no time to answer any
(benchmarks/served)."""
MOST_HELD = 1.0  # seconds for which others are held back at most


def unseen(slack: float) -> float:
    """Of so many seconds to a deadline those that are left for the way to the client and back."""
    return min(UNSEEN * slack, MOST_UNSEEN)


class Front:
    """Images on their way to the queue, `lanes` of them at once: how many, and the seconds that one keeps all lanes.

    It keeps one of them, while others may be free: what single images take tells then what many at once would. Were
    that taken for the pace of all, those who come together would look late, and refused never show that they are not.
    """

    def __init__(self, clock: Callable[[], float], lanes: int = 1) -> None:
        self._clock, self._since, self._spent = clock, 0.0, 0.0
        self._lanes = lanes
        self.coming = 0
        """Images that the doorman let pass and that have not come to the gate."""
        self.inside = 0
        self.seconds = 0.0
        self._reply = self._deviation = 0.0
        self._refusals = Bucket(AT_ONCE, clock)

    @property
    def wait(self) -> float:
        """Seconds until one more would get to the queue."""
        return max(self.inside + 1, self._lanes) * self.seconds

    @property
    def reply(self) -> float:
        """Seconds from the end of its batch to an answer, with their deviation on top, as TCP estimates round trips."""
        return self._reply + DEVIATIONS * self._deviation

    def after(self, slack: float) -> float:
        """Seconds that a client, whose deadline is `slack` away, waits for its answer from the end of the batch on."""
        return min(unseen(slack) + self.reply, MOST_AFTER * slack)

    def held(self, due: float) -> float:
        """Seconds for which the refusal of a request, `due` then by the clock, is held back: it comes in time."""
        slack = max(0.0, due - self._clock())
        return self._refusals.wait(min(slack - unseen(slack), MOST_HELD))

    def passing(self) -> Self:
        """For a `with` block: an image is on its way inside it."""
        return self

    def __enter__(self) -> None:
        self._spend()
        self.inside += 1

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._spend()
        if not isinstance(error, (DeadlinePassed, CancelledError)):  # which may have kept no lane at all
            self._learn()
        self.inside -= 1

    def answered(self, seconds: float) -> None:
        """Learn what an answer takes from the end of its batch on."""
        self._deviation += WEIGHT * (abs(seconds - self._reply) - self._deviation)
        self._reply += WEIGHT * (seconds - self._reply)

    def _spend(self) -> None:
        now = self._clock()
        self._spent += (now - self._since) * min(1.0, self.inside / self._lanes)
        self._since = now

    def _learn(self) -> None:
        seconds, self._spent = self._spent, 0.0
        most = LARGEST * min(self.inside, self._lanes) * self.seconds or seconds
        self.seconds += WEIGHT * (min(seconds, most) - self.seconds) if self.seconds else seconds
