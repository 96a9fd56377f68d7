"""When a call is sent again, after how long, and for what budget. No I/O and no clock."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import httpx

from stitchserve.calls import Call
from stitchserve.errors import TimedOut, Unavailable, Unreachable, refusal

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Retrying:
    """At most `most` more tries, in seconds: none where the server says to come back after more than `longest`.

    The wait is what Retry-After says and up to half as much more, but `least` at the least, so that clients that were
    refused together do not come back together; without that header it doubles from `first`. Only a 503 and a broken
    connection are tried again: what is refused otherwise would be again, and a deadline that passed has passed.
    """

    most: int = 2
    first: float = 0.1
    least: float = 0.05
    longest: float = 10.0
    downgrade: bool = False
    random: Callable[[], float] = random.random

    def wait(self, tries: int, retry_after: float | None) -> float:
        """Seconds after so many tries."""
        at_least = self.first * 2.0 ** (tries - 1) if retry_after is None else retry_after
        return at_least + self.random() * max(self.least, at_least / 2)


class Tries(Generic[Answer]):
    """One call on its way: what to send next, and how often it was sent."""

    def __init__(self, call: Call[Answer], how: Retrying) -> None:
        self.call, self._how = call, how
        self.count = 1

    def after(self, outcome: httpx.Response | httpx.RequestError) -> float:
        """Seconds to wait before the next try. Raises what went wrong where there is none."""
        failure = _broken(outcome) if isinstance(outcome, httpx.RequestError) else refusal(outcome)
        retry_after = failure.retry_after if isinstance(failure, Unavailable) else None
        again = isinstance(failure, Unavailable) or isinstance(outcome, httpx.NetworkError | httpx.RemoteProtocolError)
        if not again or self.count > self._how.most or (retry_after or 0.0) > self._how.longest:
            raise failure
        wait = self._how.wait(self.count, retry_after)
        self.count += 1
        if self._how.downgrade and isinstance(failure, Unavailable):
            self.call = self.call.cheaper()
        return wait


def _broken(error: httpx.RequestError) -> Unreachable | TimedOut:
    reason = f"{type(error).__name__}: {error}"
    failure = TimedOut(reason) if isinstance(error, httpx.TimeoutException) else Unreachable(reason)
    failure.__cause__ = error
    return failure
