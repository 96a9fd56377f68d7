"""How many requests to expect while a batch runs, learned from how many came."""

import math

MEMORY = 10.0  # SLOs that the rate looks back; their spread takes four times as many samples to know
RECENT = 0.8  # SLOs that tell what the load is of late
GONE = 1.5  # standard deviations that the recent load must lie below the rate to be another load
LARGEST = 5.0  # standard deviations: what is further off is another load too, not the spread of this one
LEAST_DISPERSION = 1.0  # arrivals that know nothing of each other


class Forecast:
    """The rate of arrivals and their index of dispersion (variance over mean of counts), as exponential averages."""

    def __init__(self) -> None:
        self.rate = 0.0
        self.dispersion = LEAST_DISPERSION
        self._recent = 0.0
        self._seen = 0.0

    def observe(self, arrived: int, seconds: float, slo: float) -> None:
        """Learn that so many arrived in so many seconds."""
        if seconds <= 0:
            return
        self._seen += seconds
        memory = min(MEMORY * slo, self._seen)  # at first all that was seen counts alike
        window = min(RECENT * slo, self._seen)
        expected = self._recent * seconds
        if expected > 0:
            surprise = min((arrived - expected) ** 2 / max(expected, 1.0), LARGEST**2 * self.dispersion)
            self.dispersion += _weight(seconds, 4 * memory) * (surprise - self.dispersion)
        self.rate += _weight(seconds, memory) * (arrived / seconds - self.rate)
        self._recent += _weight(seconds, window) * (arrived / seconds - self._recent)
        if self._recent * window + GONE * self._deviation(self.rate * window) < self.rate * window:
            self.rate = self._recent
            self.dispersion = LEAST_DISPERSION

    def most(self, seconds: float, deviations: float) -> float:
        """So many standard deviations above the arrivals to be expected in that time."""
        mean = self.rate * seconds
        return mean + deviations * self._deviation(mean)

    def _deviation(self, mean: float) -> float:
        return math.sqrt(max(self.dispersion, LEAST_DISPERSION) * mean)


def _weight(seconds: float, memory: float) -> float:
    return -math.expm1(-seconds / memory)
