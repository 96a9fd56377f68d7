"""The best that any scheduler could have done with the arrivals of a trace."""

from collections import deque

import numpy as np
import numpy.typing as npt

from lookup_tables.frontier import Point, upper_hull
from server.batch_costs import Costs
from server.replay.traces import Trace

Times = npt.NDArray[np.float64]


def fluid_bound(trace: Trace, costs: Costs, slo: float) -> float:
    """An upper bound on effective accuracy (mean top-1, a miss counting 0), as a fraction.

    Everything is relaxed that a scheduler cannot have: it knows all arrivals, a request's work is divisible, every
    row costs what it costs in the batch size that suits its stitch best, and mixtures of stitches count as one. What is
    left is to give each request, served in the order of arrival, its time between its arrival and its deadline. Worth
    is concave in time, so the most even division is optimal: the taut string between the curve of arrivals and that of
    deadlines. Stitches of unknown top-1 count 0.
    """
    seconds, worth = _worth_of_time(costs)
    total = 0.0
    starts = np.flatnonzero(np.diff(trace.arrivals) >= slo) + 1  # whoever comes later meets an empty machine
    for part in np.split(trace.arrivals, starts):
        total += float(np.interp(np.diff(taut_string(part, slo)), seconds, worth).sum())
    return total / len(trace.arrivals)


def _worth_of_time(costs: Costs) -> tuple[Times, Times]:
    """The concave function of seconds for a row to top-1, through (0, 0): a share of a request may be dropped."""
    none = costs.frontier[0]
    points = [Point(0.0, 0.0, none), *(Point(costs.row(e.stitch), e.top1 or 0.0, e) for e in costs.frontier)]
    rising: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.value)):
        if not rising or point.value > rising[-1].value:
            rising.append(point)
    hull = upper_hull(rising)
    return np.array([p.cost for p in hull]), np.array([p.value for p in hull])


def taut_string(arrivals: Times, slo: float) -> Times:
    """The times (n + 1) between which n requests, one after the other, are served for as even times as can be.

    Request i is served between its arrival and `slo` seconds later. `arrivals` ascend, each less than `slo` after the
    one before. A funnel: the shortest path between the curves of arrivals and deadlines, in one pass.
    """
    lowest = np.append(arrivals, arrivals[-1] + slo).tolist()
    highest = np.concatenate([arrivals[:1], arrivals + slo]).tolist()
    knots = [(0, float(arrivals[0]))]
    upper, lower = deque(knots), deque(knots)
    for index in range(1, len(lowest)):
        _extend(upper, (index, highest[index]), 1)
        _extend(lower, (index, lowest[index]), -1)
        while len(upper) > 1 and len(lower) > 1 and _slope(upper[0], upper[1]) < _slope(lower[0], lower[1]):
            chain, other = (upper, lower) if upper[1][0] <= lower[1][0] else (lower, upper)
            chain.popleft()
            knots.append(chain[0])
            other[0] = chain[0]
            while len(other) > 1 and other[1][0] <= chain[0][0]:
                other.popleft()
                other[0] = chain[0]
    knots.extend(list(upper)[1:])
    places, times = zip(*knots, strict=True)
    return np.asarray(np.interp(np.arange(len(lowest)), places, times))


Knot = tuple[int, float]


def _extend(chain: deque[Knot], knot: Knot, side: int) -> None:
    """Append to one side of the funnel, keeping its slopes ascending (side 1) or descending (-1)."""
    while len(chain) > 1 and side * _slope(chain[-2], chain[-1]) >= side * _slope(chain[-1], knot):
        chain.pop()
    chain.append(knot)


def _slope(left: Knot, right: Knot) -> float:
    return (right[1] - left[1]) / (right[0] - left[0])
