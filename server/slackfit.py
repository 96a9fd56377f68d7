"""SlackFit, the policy of SuperServe (Khare et al., NSDI'25), as published; for comparison."""

from bisect import bisect_right

from server.batch_costs import Costs
from server.policy import Decision, View, up_to, why

BUCKETS = 4


class SlackFit:
    """Buckets of latency, each with the largest batch that fits and the most accurate stitch at that size.

    Offline, the range from the cheapest stitch alone to the dearest at the largest batch is cut evenly. Online, the
    slack of the most urgent request picks the bucket closest below it. One stitch a batch; a budget of a request's own
    still binds it.
    """

    name, timed = "slackfit", True

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        sizes = [2**power for power in range(costs.max_batch.bit_length()) if 2**power < costs.max_batch]
        sizes.append(costs.max_batch)
        low, high = costs.least(1), costs.seconds(costs.frontier[-1].stitch, costs.max_batch)
        self._ends = [low + (high - low) * (bucket + 1) / BUCKETS for bucket in range(BUCKETS)]
        self._tuples = [self._fitting(end, sizes) for end in self._ends]

    def _fitting(self, end: float, sizes: list[int]) -> tuple[int, int]:
        """(rank, rows) of the bucket that ends there."""
        fitting = [
            (rows, rank)
            for rows in sizes
            for rank, entry in enumerate(self._costs.frontier)
            if self._costs.seconds(entry.stitch, rows) <= end
        ]
        rows, rank = max(fitting, default=(1, 0))
        return rank, rows

    def decide(self, view: View) -> Decision:
        """The next batch."""
        bucket = max(0, bisect_right(self._ends, view.slack(0)) - 1)
        rank, rows = self._tuples[bucket]
        rows = min(rows, len(view.waiting))
        entries = tuple(up_to(request.allowed, rank) for request in view.waiting[:rows])
        reason = why(rows, len(view.waiting) - rows, self._costs, "bucket")
        return Decision(entries, self._costs.frontier[rank], reason)
