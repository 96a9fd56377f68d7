"""Who may come in: permits, held while a request is decoded, queued and run, or a refusal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from server.errors import Overloaded


class Limiter:
    """At most `capacity` images inside at once. `drain` gives the seconds in which that many would be answered."""

    def __init__(self, capacity: int, drain: Callable[[int], float]) -> None:
        self._capacity, self._drain = capacity, drain
        self.inside = 0

    def check(self) -> None:
        """Raises Overloaded, with a time to come back, when all permits are taken."""
        if self.inside >= self._capacity:
            detail = f"{self.inside} images are inside the server, which is all it takes; come back later"
            raise Overloaded(detail, retry_after=self._drain(self.inside))

    @contextmanager
    def admit(self, most: int = 1) -> Iterator[int]:
        """Holds `most` permits inside the block, or as many as are left, and says how many; Overloaded for none."""
        self.check()
        taken = min(most, self._capacity - self.inside)
        self.inside += taken
        try:
            yield taken
        finally:
            self.inside -= taken
