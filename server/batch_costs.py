"""What batches take by the lookup table, kept at hand for decisions of some microseconds."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from lookup_tables.frontier import Point, pareto, upper_hull
from lookup_tables.table import Entry, LookupTable


@dataclass(frozen=True)
class Level:
    """A point of the convex hull of (seconds, worth) for batches of one size."""

    entry: Entry
    rank: int
    """Place of the entry on the frontier."""
    seconds: float


class Costs:
    """Predicted median seconds of batches of at most `max_batch` rows; `frontier` by ascending FLOPs and worth."""

    def __init__(self, table: LookupTable, max_batch: int) -> None:
        self.table, self.max_batch = table, max_batch
        self.frontier = table.frontier()
        self.rank = {entry.stitch: rank for rank, entry in enumerate(self.frontier)}
        self._levels: dict[int, tuple[Level, ...]] = {}
        self._capacity: dict[int, float] = {}

    def seconds(self, stitch: int, rows: int) -> float:
        """Seconds of a batch of one stitch."""
        return self.table.seconds(stitch, rows)

    def batch(self, counts: Mapping[int, int]) -> float:
        """Seconds of one batch that mixes stitches, given the rows of each."""
        if len(counts) == 1:
            ((stitch, rows),) = counts.items()
            return self.seconds(stitch, rows)
        return self.table.batch_seconds(counts)

    @cached_property
    def _least(self) -> list[float]:
        """Seconds of a batch of the cheapest stitch, by its rows, never falling; a table without latencies has none."""
        rows = range(1, self.max_batch + 1)
        return [0.0, *accumulate((self.table.seconds(self.frontier[0].stitch, number) for number in rows), max)]

    def least(self, rows: int) -> float:
        """Seconds of a batch of the cheapest stitch."""
        return self._least[rows]

    def most_rows(self, seconds: float) -> int:
        """The most rows of the cheapest stitch whose batch takes no longer."""
        return bisect_right(self._least, seconds) - 1

    def row(self, stitch: int) -> float:
        """Seconds of one row in the batch size, up to `max_batch`, that answers the most of them in a second."""
        found = self._capacity.get(stitch)
        if found is None:
            found = min(self.seconds(stitch, rows) / rows for rows in range(1, self.max_batch + 1))
            self._capacity[stitch] = found
        return found

    @cached_property
    def cheapest(self) -> float:
        """The same of the cheapest stitch."""
        return self.row(self.frontier[0].stitch)

    def drain(self, floor: float) -> float:
        """Seconds in which rows with this sum of `row` seconds are served: full batches, then a smaller one."""
        whole, rest = divmod(floor / self.cheapest, self.max_batch)
        return whole * self._least[-1] + (self._least[round(rest) or 1] if rest > 1e-6 else 0.0)

    def levels(self, rows: int) -> tuple[Level, ...]:
        """The frontier's entries that no mixture of two others matches at about this batch size, by ascending seconds.

        Sizes up to the next power of two are taken for alike: they have nearly the same levels.
        """
        rows = min(self.max_batch, 1 << (rows - 1).bit_length())
        found = self._levels.get(rows)
        if found is None:
            points = [Point(self.seconds(entry.stitch, rows), entry.worth, entry) for entry in self.frontier]
            hull = upper_hull(pareto(points))
            found = tuple(Level(point.entry, self.rank[point.entry.stitch], point.cost) for point in hull)
            self._levels[rows] = found
        return found
