"""What a batch may take beyond what is expected of it: a band that few exceed."""

from collections import deque

import numpy as np

WINDOW = 256
"""Batches that are remembered."""
CORRECTION = 0.002
"""How fast the quantile asked for follows the misses seen (Gibbs and Candes 2021, gamma). A single miss is no reason."""
AVERAGE = 0.01
LARGEST = 4.0
TYPICAL = 0.95
"""Errors beyond this quantile count as that in what is typical."""


class Margin:
    """An online conformal bound of (seconds - expected): `pad` seconds, and `slope` of the expected ones.

    Some of what delays a batch comes with every batch (a thread waits for its turn), some grows with it (a slower
    machine). How the typical error grows with the expected seconds is fitted by least squares, errors are divided by
    that (Lei et al. 2018), and the bound is their quantile at a level that is corrected by how often the bound was
    exceeded: in the long run as often as `miss_probability` says, whatever the errors' distribution. None: no margin.
    """

    def __init__(self, miss_probability: float | None) -> None:
        self.miss_probability = miss_probability
        self.missed = 0.0
        """Share of the batches that exceeded their bound, as a long exponential average."""
        self.pad = self.slope = 0.0
        self._level = miss_probability or 0.0
        self._seen: deque[tuple[float, float]] = deque(maxlen=WINDOW)

    def observe(self, expected: float, seconds: float) -> None:
        """Learn from a batch that took `seconds`."""
        if not self.miss_probability:
            return
        missed = seconds - expected > self.pad + self.slope * expected
        self.missed += AVERAGE * (missed - self.missed)
        self._level += CORRECTION * (self.miss_probability - missed)
        most = LARGEST * (expected * (1 + self.slope) + self.pad)  # one that stalled says little about the next
        self._seen.append((expected, min(seconds, most) - expected))
        self._fit()

    def _fit(self) -> None:
        expected, errors = np.array(self._seen).T
        sizes = np.abs(errors)
        sizes = np.minimum(sizes, np.quantile(sizes, TYPICAL))
        most = sizes.mean() / expected.mean()
        spread = expected.var()
        growth = np.mean((expected - expected.mean()) * sizes) / spread if spread > 0 else most
        growth = min(max(growth, 0.0), most)
        base = max(0.0, sizes.mean() - growth * expected.mean())
        typical = base + growth * expected
        scores = np.sort(errors / np.where(typical > 0, typical, np.inf))
        exceeding = int(min(1.0, max(0.0, self._level)) * (len(scores) + 1))
        # Not below 0: while what is expected moves down, errors of before say nothing of what may exceed it now.
        times = max(0.0, float(scores[max(0, len(scores) - max(1, exceeding))]))
        self.pad, self.slope = times * float(base), times * float(growth)
