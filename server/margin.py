"""What a batch may take beyond what is expected of it: a band that few exceed."""

import numpy as np

WINDOW = 256
"""Batches that are remembered."""
CORRECTION = 0.002
"""How fast the quantile asked for follows the misses seen (Gibbs and Candes 2021, gamma)."""
AVERAGE = 0.01
"""Weight of the last batch in `missed`."""
LARGEST = 4.0
"""Times its bound that an error counts at most: a batch that stalled says little about the next."""
LESS = 0.8
"""How much less another shape must need than one in proportion, which is the safest for long batches."""
STEP = 4
"""Batches from one fit to the next, unless one exceeded the bound."""
SHAPED_BY = 0.05
"""The quantile by which shapes are compared: further out single errors would decide."""
SHARES = np.linspace(1.0, 0.0, 5)[:, None]
"""How much of the error may grow with the expected seconds; the rest is alike for all."""


class Margin:
    """An online conformal bound of (seconds - expected): `pad` seconds, and `slope` of the expected ones.

    Some of what delays a batch comes with every batch (a thread waits for its turn), some grows with it (a slower
    machine). Errors are divided by what is typical for the batch (Lei et al. 2018), of several such shapes the one that
    needs the least margin counts. The bound is their quantile at a level that is corrected by how often it was
    exceeded: in the long run as often as `miss_probability` says, whatever the errors' distribution. None: no margin.
    """

    def __init__(self, miss_probability: float | None) -> None:
        self.miss_probability = miss_probability
        self.missed = 0.0
        """Share of the batches that exceeded their bound, as a long exponential average."""
        self.pad = self.slope = 0.0
        self._level = miss_probability or 0.0
        self._count = 0
        self._expected, self._errors = np.zeros(WINDOW), np.zeros(WINDOW)  # rings

    def beyond(self, expected: float) -> float:
        """The seconds to add to the expected ones."""
        return self.pad + self.slope * expected

    def observe(self, expected: float, seconds: float) -> None:
        """Learn from a batch that took `seconds`."""
        if not self.miss_probability:
            return
        missed = seconds - expected > self.beyond(expected)
        self.missed += AVERAGE * (missed - self.missed)
        self._level += CORRECTION * (self.miss_probability - missed)
        most = LARGEST * (expected + min(self.beyond(expected), LARGEST * expected))  # or the bound would feed itself
        place = self._count % WINDOW
        self._expected[place], self._errors[place] = expected, min(seconds, most) - expected
        self._count += 1
        if missed or self._count < WINDOW or self._count % STEP == 0:
            self._fit(min(self._count, WINDOW))

    def _fit(self, seen: int) -> None:
        expected, errors = self._expected[:seen], self._errors[:seen]
        mean = expected.mean()
        typical = mean + SHARES * (expected - mean)  # on average the same for every share
        shaping, bounding = _place(SHAPED_BY, seen), _place(self._level, seen)
        scores = np.partition(errors / typical, (shaping, bounding), axis=1)
        bounds = scores[:, shaping]
        best = bounds.argmin() if bounds.min() < LESS * bounds[0] else 0
        # Not below 0: while what is expected moves down, errors of before say nothing of what may exceed it now.
        times, share = max(0.0, float(scores[best, bounding])), float(SHARES[best, 0])
        self.pad, self.slope = times * (1 - share) * float(mean), times * share


def _place(level: float, seen: int) -> int:
    """Of so many errors in ascending order the one that this share of them exceeds; the largest below that."""
    exceeding = int(min(1.0, max(0.0, level)) * (seen + 1))
    return max(0, seen - max(1, exceeding))
