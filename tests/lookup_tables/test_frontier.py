"""The Pareto set and its hull against their definitions."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from lookup_tables.frontier import Point, pareto, upper_hull
from lookup_tables.records import Entry

Drawn = list[tuple[int, int]]
drawn = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40)), max_size=25)


def points(pairs: Drawn) -> list[Point]:
    return [Point(cost, value, Entry(i, "a[0:1]", cost, 1, None)) for i, (cost, value) in enumerate(pairs)]


def ids(kept: tuple[Point, ...]) -> list[int]:
    return [point.entry.stitch for point in kept]


@given(drawn)
def test_the_frontier_is_what_nothing_dominates(pairs: Drawn) -> None:
    def dominated(p: Point) -> bool:
        return any(
            (q.cost <= p.cost and q.value >= p.value)
            and (q.cost < p.cost or q.value > p.value or q.entry.stitch < p.entry.stitch)
            for q in points(pairs)
        )

    expected = sorted((p for p in points(pairs) if not dominated(p)), key=lambda p: p.cost)
    assert ids(pareto(points(pairs))) == ids(tuple(expected))


@given(drawn)
def test_the_hull_is_what_no_mixture_of_two_matches(pairs: Drawn) -> None:
    frontier = pareto(points(pairs))

    def matched(p: Point) -> bool:
        between = [(a, b) for a in frontier for b in frontier if a.cost < p.cost < b.cost]
        return any(mixture(a, b, p.cost) >= p.value for a, b in between)

    assert ids(upper_hull(frontier)) == [p.entry.stitch for p in frontier if not matched(p)]


def mixture(a: Point, b: Point, cost: float) -> Fraction:
    share = Fraction(int(cost - a.cost), int(b.cost - a.cost))
    return int(a.value) + share * int(b.value - a.value)


def test_at_equal_cost_the_value_then_the_id_decides() -> None:
    assert ids(pareto(points([(5, 1), (5, 3), (5, 3), (5, 2)]))) == [1]


def test_a_dearer_point_of_equal_value_is_left_out() -> None:
    assert ids(pareto(points([(5, 3), (6, 3), (7, 4)]))) == [0, 2]


def test_points_in_one_line_leave_only_the_ends() -> None:
    assert ids(upper_hull(pareto(points([(1, 1), (2, 2), (3, 3)])))) == [0, 2]
