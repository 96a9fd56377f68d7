"""The queue: requests by deadline, the most urgent first."""

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar, overload

from server.allowance import Allowed
from server.tenants import Tenant


class Waiting(Protocol):
    """What the controller needs to know of a request: whose it is, what its budget admits, and when it is due."""

    @property
    def tenant(self) -> Tenant:
        """Whose request it is."""

    @property
    def allowed(self) -> Allowed:
        """What its budget admits."""

    @property
    def deadline(self) -> float:
        """When its answer is due, in absolute seconds by the queue's clock."""


Request = TypeVar("Request", bound=Waiting)
Request_co = TypeVar("Request_co", bound=Waiting, covariant=True)


class DeadlineQueue(Sequence[Request], Generic[Request]):
    """Requests in the order of their deadlines, of equal ones the first to come.

    `deadlines` are theirs, in that order. `floor` is the sum of their floors: seconds, by the table, in which full
    batches of the cheapest admitted stitches would answer them all. `tenants`: how many of them are whose.
    """

    def __init__(self) -> None:
        self._requests: list[Request] = []
        self.deadlines = array("d")
        self.floor = 0.0
        self.tenants: Counter[Tenant] = Counter()

    def push(self, request: Request) -> None:
        """Add a request."""
        place = bisect_right(self.deadlines, request.deadline)
        self._requests.insert(place, request)
        self.deadlines.insert(place, request.deadline)
        self.floor += request.allowed.floor
        self.tenants[request.tenant] += 1

    def floor_before(self, deadline: float) -> float:
        """The floors of those due until then, taking all for alike."""
        before = bisect_right(self.deadlines, deadline)
        return self.floor * before / len(self._requests) if before else 0.0

    def due_before(self, moment: float) -> int:
        """How many are due before that moment."""
        return bisect_left(self.deadlines, moment)

    def take(self, count: int) -> list[Request]:
        """Remove the most urgent ones and return them."""
        taken = self._requests[:count]
        del self._requests[:count]
        del self.deadlines[:count]
        self._forget(taken)
        return taken

    def take_late(self, now: float) -> list[Request]:
        """Remove those whose deadline has passed and return them."""
        return self.take(self.due_before(now)) if self.late(now) else []

    def late(self, now: float) -> bool:
        """Whether the most urgent one's deadline has passed."""
        return bool(self.deadlines) and self.deadlines[0] < now

    def remove(self, request: Request) -> None:
        """Remove this one, if it is still here."""
        index = bisect_left(self.deadlines, request.deadline)
        while index < len(self.deadlines) and self.deadlines[index] == request.deadline:
            if self._requests[index] is request:
                del self._requests[index]
                del self.deadlines[index]
                self._forget([request])
                return
            index += 1

    def _forget(self, gone: Sequence[Request]) -> None:
        for request in gone:
            self.tenants[request.tenant] -= 1
            if not self.tenants[request.tenant]:
                del self.tenants[request.tenant]
        # An empty queue starts from zero again, so that rounding does not add up.
        self.floor = self.floor - sum(request.allowed.floor for request in gone) if self._requests else 0.0

    def __len__(self) -> int:
        return len(self._requests)

    @overload
    def __getitem__(self, index: int) -> Request: ...
    @overload
    def __getitem__(self, index: slice) -> list[Request]: ...
    def __getitem__(self, index: int | slice) -> Request | list[Request]:
        return self._requests[index]

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests)
