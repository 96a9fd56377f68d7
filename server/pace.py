"""Our policy: everyone's slack is shared along the queue, and a batch leaves room for those who come while it runs."""

from collections.abc import Callable

import numpy as np

from server.batch_costs import Costs
from server.policy import DRAINED, Decision, View, why
from server.spreading import divide

RESERVE = 0.95
"""Share of a request's slack that may be planned away."""
SHARE = 0.5
"""Share of the SLO that a batch may take: whoever comes as it starts waits it out, and then needs as long again."""
BETTER = 1.05
"""How many times as many answers in time a second fewer rows must bring, if others are to be refused for it."""
DEVIATIONS = 3.0
"""How many more arrivals than expected, in standard deviations, must still find room."""


class Pace:
    """Spends the most time a row that keeps every deadline in the queue, and those expected next.

    Every waiting request is owed the time of the cheapest stitch that it admits. What time is left before the deadlines
    is shared evenly: a row gets the least, over all requests, of (slack - what is owed up to it) / its place. That is
    the first piece of the taut string through the deadlines, which is optimal where nobody else arrives (Yao, Demers
    and Shenker 1995, for arrivals in the order of their deadlines). A batch is shorter still where a burst of arrivals,
    served by the cheapest stitch right after it, would come too late.
    """

    name, timed = "pace", True

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._ends = np.empty(0)
        """Rows in so many full batches."""

    def decide(self, view: View) -> Decision:
        """The next batch."""
        doomed, rows, reason = self._rows(view)
        seconds = self._shared(view, doomed, rows)
        if view.forecast.most(seconds / view.safe, DEVIATIONS) >= 1:  # somebody may come meanwhile
            seconds = min(seconds, self._ahead(view, doomed, rows))
        batch = divide(self._costs, view.waiting[doomed : doomed + rows], seconds, view.waiting.tenants)
        return Decision(batch.entries, batch.level, reason, doomed, batch.seconds)

    def _rows(self, view: View) -> tuple[int, int, str]:
        """How many are lost, how many go next, and why no more.

        All that may, where the most urgent one can wait for them; fewer where that saves it and loses nobody else;
        else as many as bring the most answers in time a second, without those that cannot be.
        """
        queued = len(view.waiting)
        most = min(queued, self._costs.max_batch)
        above = self._above(view)

        def seconds(rows: int) -> float:
            return self._costs.least(rows) * above

        few = min(most, self._costs.most_rows((view.waiting.deadlines[0] - view.now) * view.likely / above))
        if few == most:
            return 0, most, why(most, queued - most, self._costs, "")
        rest = min(queued - few, self._costs.max_batch)
        if few > 0 and view.in_time(seconds(few) + seconds(rest)) >= queued - few:
            return 0, few, "deadline"
        rows = largest(most, lambda rows: view.in_time(seconds(rows)) >= rows)
        if not rows:
            return queued - 1, 1, DRAINED
        surely = view.surely_in_time(seconds(rows))
        if surely < rows:
            sure = largest(rows - 1, lambda rows: view.surely_in_time(seconds(rows)) >= rows)
            rate = {n: view.mean_in_time(n, seconds(n)) / seconds(n) for n in (rows, (rows + sure) // 2, sure) if n}
            best = max(rate, key=rate.__getitem__)
            if rate[best] > BETTER * rate[rows]:
                rows, surely = best, view.surely_in_time(seconds(best))
        doomed = queued - max(rows, surely)
        return doomed, rows, why(rows, queued - doomed - rows, self._costs, "deadline")

    def _above(self, view: View) -> float:
        """How many times the cheapest stitch of all what waits takes at least, as budgets admit."""
        return max(1.0, view.waiting.floor / (self._costs.cheapest * len(view.waiting)))

    def _shared(self, view: View, doomed: int, rows: int) -> float:
        """Seconds for the next rows when the time before every deadline is shared by all who wait up to it."""
        queued, most = len(view.waiting) - doomed, self._costs.max_batch
        owed = view.waiting.floor / len(view.waiting)
        # Those of one batch end together: the most urgent of each must wait for all of them.
        shares = np.frombuffer(view.waiting.deadlines)[doomed::most] - (view.now + view.pad)
        if len(shares) > len(self._ends):
            self._ends = np.arange(1.0, 2 * len(shares) + 1) * most
        last = shares.item(-1) / queued  # whose batch may not be full
        shares /= self._ends[: len(shares)]
        shares[-1] = last
        least: float = shares.item(shares.argmin())  # faster than its `min`
        surplus = RESERVE * view.safe * least - owed
        return max(0.0, min(view.slack(doomed), rows * (owed + surplus)))

    def _ahead(self, view: View, doomed: int, rows: int) -> float:
        """The longest batch after which a burst of arrivals can be served in time by the cheapest stitch."""
        left = len(view.waiting) - doomed - rows
        slo, row = max(0.0, view.slo - view.pad) * view.safe, self._costs.cheapest
        low, high = 0.0, SHARE * slo

        def after(seconds: float) -> float:
            return self._costs.drain(row * (left + view.forecast.most(seconds / view.safe, DEVIATIONS)))

        if self._costs.drain(row * left) > slo:  # even if nobody came
            return low
        if high + after(high) <= slo:
            return high
        for _ in range(8):  # to a 256th of the SLO
            middle = (low + high) / 2
            if middle + after(middle) <= slo:
                low = middle
            else:
                high = middle
        return low


def largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest number from 1 to `most` that fits, where all below one that fits do; 0 if none does."""
    if fits(most):  # mostly
        return most
    low, high = 0, most - 1
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low
