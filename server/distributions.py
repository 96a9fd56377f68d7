"""Histograms and summaries for one thread, which so need none of prometheus_client's locks."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import inf

from prometheus_client.core import HistogramMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

Family = HistogramMetricFamily | SummaryMetricFamily


class Distribution:
    """How many values lie up to each of `bounds`, and beyond the last, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value


class Distributions(Collector):
    """A family of them, by the values of `label`, or one without any; with no `bounds` it is shown as a summary."""

    def __init__(self, name: str, help_text: str, bounds: Sequence[float] = (), label: str | None = None) -> None:
        self._name, self._help, self._bounds, self._label = name, help_text, bounds, label
        self._all: dict[str, Distribution] = {} if label else {"": Distribution(bounds)}

    def of(self, value: str = "") -> Distribution:
        """That with this value of the label."""
        if value not in self._all:
            self._all[value] = Distribution(self._bounds)
        return self._all[value]

    def describe(self) -> Iterable[Family]:
        """The family alone: by its name no two are registered."""
        return [self._family()]

    def collect(self) -> Iterable[Family]:
        """The family with its samples."""
        family = self._family()
        for value, each in self._all.items():
            labels = [value] if self._label else []
            if isinstance(family, SummaryMetricFamily):
                family.add_metric(labels, sum(each.counts), each.sum)
            else:
                upto = zip([*self._bounds, inf], accumulate(each.counts), strict=True)
                family.add_metric(labels, [(_written(bound), count) for bound, count in upto], each.sum)
        return [family]

    def _family(self) -> Family:
        kind = HistogramMetricFamily if self._bounds else SummaryMetricFamily
        return kind(self._name, self._help, labels=[self._label] if self._label else [])


def _written(bound: float) -> str:
    return "+Inf" if bound == inf else str(float(bound))
