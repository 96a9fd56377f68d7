"""Who may come in: a permit, held while a request is inside the server, or a refusal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from server.errors import Overloaded


class Limiter:
    """At most `capacity` requests inside at once. `drain` gives the seconds in which that many would be answered."""

    def __init__(self, capacity: int, drain: Callable[[int], float]) -> None:
        self._capacity, self._drain = capacity, drain
        self.inside = 0

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Holds a permit inside the block. Raises Overloaded, with a time to come back, when all are taken."""
        if self.inside >= self._capacity:
            detail = f"{self.inside} requests are inside the server, which is all it takes; come back later"
            raise Overloaded(detail, retry_after=self._drain(self.inside))
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
