"""How long batches take against the table's prediction, learned from those that ran."""

import math
from bisect import bisect_left, insort
from collections import deque

WEIGHT = 0.1
LARGEST_STEP = math.log(4)  # one batch that stalled says little about the next
BOUNDS = (math.log(0.1), math.log(100))
WINDOW = 256
"""Batches whose errors are remembered."""
CORRECTION = 0.01
"""How fast the quantile asked for follows the misses seen (Gibbs and Candes 2021, gamma)."""


class Drift:
    """Observed over predicted seconds: `center`, where it stands; `upper`, what it exceeds with a small probability.

    `upper` is an online conformal bound: the quantile of the last errors at a level that is corrected by how often it
    was exceeded, so that in the long run it is exceeded as often as promised, whatever the errors' distribution.
    Without a `miss_probability` it is `center`.

    Drift also learns what others take of the machine; headroom tells that sooner, and `left` is what it tells anew.
    """

    def __init__(self, miss_probability: float | None = None) -> None:
        self.miss_probability = miss_probability
        self.missed = 0.0
        """Share of the batches that took longer than `upper` promised, as a long exponential average."""
        self._log = 0.0
        self._headroom = 0.0
        """Logarithm of the headroom of the batches that were learned from, averaged as they are."""
        self._level = miss_probability or 0.0
        self._errors: deque[float] = deque()
        self._ordered: list[float] = []

    @property
    def center(self) -> float:
        """Observed over predicted seconds, of late."""
        return math.exp(self._log)

    @property
    def upper(self) -> float:
        """The factor to plan with."""
        return math.exp(self._log + self._margin())

    def left(self, headroom: float) -> float:
        """What others leave of the share, in (0, 1], of the machine that the batches learned from had.

        Headroom itself would be counted twice once drift has learned what it does to batches, if anything.
        """
        return min(1.0, headroom / math.exp(self._headroom))

    def observe(self, ratio: float, headroom: float = 1.0) -> None:
        """Learn from a batch that took `ratio` times the seconds that the table predicts, at this headroom."""
        error = math.log(ratio) - self._log
        if self.miss_probability:
            unforeseen = error + math.log(self.left(headroom))
            missed = unforeseen > self._margin()
            self.missed += CORRECTION * (missed - self.missed)
            self._level += CORRECTION * (self.miss_probability - missed)
            self._remember(unforeseen)
        step = max(-LARGEST_STEP, min(LARGEST_STEP, error))
        self._log = max(BOUNDS[0], min(BOUNDS[1], self._log + WEIGHT * step))
        self._headroom += WEIGHT * (math.log(headroom) - self._headroom)

    def _margin(self) -> float:
        """The error, in logarithms, that the share `_level` of those remembered exceeds; the largest below that.

        Not below 0: while the center moves down, errors of before say nothing of what it may exceed now.
        """
        if not self._ordered:
            return 0.0
        allowed = math.floor(max(0.0, min(1.0, self._level)) * (len(self._ordered) + 1))
        return max(0.0, self._ordered[max(0, len(self._ordered) - 1 - max(0, allowed - 1))])

    def _remember(self, error: float) -> None:
        self._errors.append(error)
        insort(self._ordered, error)
        if len(self._errors) > WINDOW:
            oldest = self._errors.popleft()
            del self._ordered[bisect_left(self._ordered, oldest)]
