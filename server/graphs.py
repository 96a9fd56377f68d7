"""Batch sizes that are padded to, and the recordings made for them: which to keep, which to make. No torch."""

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

Graph = TypeVar("Graph")

RECORD_AT = 2  # the use at which a graph is recorded: what comes once is not worth it; twice as late when it had to go
MOST_GRAPHS = 4096
EAGER = ("new", "refused")
"""Why a module call ran without a graph: it was new, or found no room."""


class Buckets:
    """The batch sizes that rows are padded to: 1, 2, 4, 8, then two steps for each doubling, and the largest."""

    def __init__(self, largest: int) -> None:
        self.sizes = _sizes(largest)
        self.halved = 0
        """How often the largest was."""

    @property
    def largest(self) -> int:
        """The most rows of one piece."""
        return self.sizes[-1]

    def fit(self, rows: int) -> int:
        """The least size with room for `rows`; `rows` itself where no size has."""
        return next((size for size in self.sizes if size >= rows), rows)

    def pieces(self, rows: int) -> Sequence[slice]:
        """The rows of a batch cut into pieces of at most the largest size."""
        return [slice(start, min(start + self.largest, rows)) for start in range(0, rows, self.largest)]

    def halve(self) -> bool:
        """Halve the largest size; False where it is one row already."""
        if self.largest == 1:
            return False
        self.sizes = _sizes(self.largest // 2)
        self.halved += 1
        return True


class Graphs(Generic[Graph]):
    """The recorded graphs by key, and how often what happened to them.

    At most `most` graphs and `limit` bytes, in all; beyond it the least recently used ones go. `eager` counts module
    calls that ran without a graph, by the reasons in EAGER.
    """

    def __init__(self, limit: int, most: int = MOST_GRAPHS) -> None:
        self.limit, self.most = limit, most
        self.captured = self.replayed = self.evicted = 0
        self.eager: Counter[str] = Counter()
        self.off: str | None = None
        self._shared = 0  # bytes of the pool that all graphs work in, which grows and is given back with the last one
        self._kept: OrderedDict[Hashable, tuple[Graph, int]] = OrderedDict()
        self._uses: Counter[Hashable] = Counter()
        self._patience: defaultdict[Hashable, int] = defaultdict(lambda: 1)
        """How many times as many uses a key must have, since it had to go."""
        self._refused: set[Hashable] = set()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def bytes(self) -> int:
        """The device memory that graphs take."""
        return self._shared + sum(self._sizes)

    @property
    def roomy(self) -> bool:
        """Whether one more as large as the largest would have none go."""
        return len(self) < self.most and self.bytes + max(self._sizes, default=0) <= self.limit

    @property
    def _sizes(self) -> list[int]:
        """Of a copy, made in one go: while others look, the engine's threads go on."""
        return [size for _, size in list(self._kept.values())]

    def find(self, key: Hashable) -> Graph | None:
        """The graph of a key, now the most recently used; None when it has none."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        self.replayed += 1
        return self._kept[key][0]

    def lacks(self, key: Hashable) -> bool:
        """Whether a key has no graph, and may have one."""
        return not (self.off or key in self._refused or key in self._kept)

    def wanted(self, key: Hashable) -> bool:
        """Count a module call that ran without a graph; True when it is time to record one."""
        if not self.lacks(key):
            self.eager["refused"] += 1
            return False
        self.eager["new"] += 1
        return self.due(key, RECORD_AT)

    def due(self, key: Hashable, at: int) -> bool:
        """Count a use of a key that has no graph; True when it is time to record one: at that use."""
        if not self.lacks(key):
            return False
        self._uses[key] += 1
        return self._uses[key] >= at * self._patience[key]

    def add(self, key: Hashable, graph: Graph, own: int, shared: int) -> None:
        """Keep a new graph that took `own` bytes, and `shared` more in the common pool; others may have to go."""
        self.captured += 1
        self._shared += shared
        self._kept[key] = graph, own
        while len(self._kept) > 1 and (len(self._kept) > self.most or self.bytes > self.limit):
            self._evict(next(iter(self._kept)))
        if self.bytes > self.limit:
            self.refuse(key)

    def refuse(self, key: Hashable) -> None:
        """Never record this key again: there is no room for it."""
        self._refused.add(key)
        if key in self._kept:
            self._evict(key)

    def stop(self, reason: str) -> None:
        """Record no more."""
        self.off = reason

    def clear(self) -> None:
        """Let every graph go, and its memory; keys that are used again are recorded again."""
        for key in list(self._kept):
            self._evict(key)

    def _evict(self, key: Hashable) -> None:
        del self._kept[key]
        self.evicted += 1
        self._uses[key] = 0
        self._patience[key] *= 2
        if not self._kept:
            self._shared = 0


def _sizes(largest: int) -> tuple[int, ...]:
    powers = [1 << power for power in range(largest.bit_length())]
    between = [3 * power // 2 for power in powers if power >= 8]
    return tuple(sorted({size for size in (*powers, *between) if size < largest} | {largest}))
