"""How long batches take against the table's prediction, learned from those that ran."""

import math

from server.margin import Margin

WEIGHT = 0.1
LARGEST_STEP = math.log(4)  # one batch that stalled says little about the next
BOUNDS = (math.log(0.1), math.log(100))


class Drift:
    """Observed over predicted seconds: `center`, where it stands; what it may exceed that by is the `margin`'s to say.

    Drift also learns what others take of the machine; headroom tells that sooner, and `left` is what it tells anew.
    """

    def __init__(self, miss_probability: float | None = None) -> None:
        self.margin = Margin(miss_probability)
        self._log = 0.0
        self._headroom = 0.0
        """Logarithm of the headroom of the batches that were learned from, averaged as they are."""
        self.center = self._shared = 1.0
        """Observed over predicted seconds, of late, and the headroom that goes with it."""

    @property
    def upper(self) -> float:
        """The factor to plan with, beside the margin's `pad`."""
        return self.center * (1 + self.margin.slope)

    def left(self, headroom: float) -> float:
        """What others leave of the share, in (0, 1], of the machine that the batches learned from had.

        Headroom itself would be counted twice once drift has learned what it does to batches, if anything.
        """
        return min(1.0, headroom / self._shared)

    def expected(self, predicted: float, headroom: float = 1.0) -> float:
        """The seconds that a batch likely takes for which the table predicts so many."""
        return predicted * self.center / self.left(headroom)

    def observe(self, predicted: float, seconds: float, headroom: float = 1.0) -> None:
        """Learn from a batch that took `seconds`, where the table predicts `predicted`, at this headroom."""
        self.margin.observe(self.expected(predicted, headroom), seconds)
        error = math.log(max(seconds, 1e-9) / predicted) - self._log
        step = max(-LARGEST_STEP, min(LARGEST_STEP, error))
        self._log = max(BOUNDS[0], min(BOUNDS[1], self._log + WEIGHT * step))
        self._headroom += WEIGHT * (math.log(headroom) - self._headroom)
        self.center, self._shared = math.exp(self._log), math.exp(self._headroom)
