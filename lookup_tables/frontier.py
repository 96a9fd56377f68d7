"""The Pareto set and its upper convex hull, of points with a cost (less is better) and a value (more is better)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lookup_tables.records import Entry


@dataclass(frozen=True)
class Point:
    """A stitch where a curve is drawn: what it costs and what it is worth."""

    cost: float
    value: float
    entry: Entry


def pareto(points: Iterable[Point]) -> tuple[Point, ...]:
    """The points worth more than every cheaper one, by ascending cost; ties go to the value, then to the lowest id."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.value, p.entry.stitch)):
        if not kept or point.value > kept[-1].value:
            kept.append(point)
    return tuple(kept)


def upper_hull(frontier: Sequence[Point]) -> tuple[Point, ...]:
    """The points of a frontier that no mixture of two others matches (Andrew's monotone chain, upper half)."""
    kept: list[Point] = []
    for point in frontier:
        while len(kept) > 1 and not _bends_down(kept[-2], kept[-1], point):
            kept.pop()
        kept.append(point)
    return tuple(kept)


def _bends_down(a: Point, b: Point, c: Point) -> bool:
    """Whether b lies above the line from a to c."""
    return (b.value - a.value) * (c.cost - a.cost) > (c.value - a.value) * (b.cost - a.cost)
