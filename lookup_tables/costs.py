"""Seconds of stitches and of mixtures, added up from the latencies of the modules they pass."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lookup_tables.latency import Latency, Quantile
from lookup_tables.modules import INPUT, OUTPUT, Composition

Way = Literal["merged", "grouped"]
"""How a mixture is run: rows at the same module together, or one stitch after another."""

FEWEST_ROWS = 64
"""Batch sizes up to this are tabulated at once, larger ones as they are asked for."""


class ModuleCosts:
    """What batches take on a device whose module latencies are known, by one quantile of them.

    A sum of medians is near the median of the sum. A sum of 99th percentiles lies above that of the sum, the less so
    as what slows one module slows the whole batch.
    """

    def __init__(self, composition: Composition, latency: Latency, quantile: Quantile = "p50") -> None:
        self._composition, self._latency, self._quantile = composition, latency, quantile
        self._modules = len(composition.modules)
        kinds = [*(module.kind for module in composition.modules), INPUT, OUTPUT]
        self._kind = np.array([composition.kinds.index(kind) for kind in kinds])
        self._passes: dict[str, NDArray[np.int64]] = {}
        self._by_rows = np.zeros((len(composition.kinds), 0))
        self._alone: dict[str, NDArray[np.float64]] = {}

    def alone(self, route: str, rows: int) -> float:
        """Seconds of a batch of `rows`, all of one route."""
        curve = self._alone.get(route)
        if curve is None or len(curve) <= rows:
            by_rows = self._tabulated(rows)
            curve = self._alone[route] = by_rows[np.repeat(self._kind, self._passing(route))].sum(axis=0)
        return float(curve[rows])

    def mixed(self, rows: Iterable[tuple[str, int]]) -> float:
        """Seconds of one batch of routes with so many rows each, those at one module together.

        After the input as long as computing takes, or launching all calls: a device fed by queues does both at once.
        """
        through = np.zeros_like(self._kind)
        for route, count in rows:
            through += self._passing(route) * count
        by_rows = self._tabulated(int(through.max()))
        seconds = by_rows[self._kind, through]
        whole, entering = float(seconds.sum()), float(seconds[-2])
        launching = self._latency.launch * np.count_nonzero(through[:-2])
        return whole + max(0.0, launching - (whole - entering))

    def _passing(self, route: str) -> NDArray[np.int64]:
        """How often a route passes each module, and then input and output."""
        passes = self._passes.get(route)
        if passes is None:
            passes = self._passes[route] = np.ones(self._modules + 2, np.int64)
            passes[:-2] = np.bincount(self._composition.steps(route), minlength=self._modules)
        return passes

    def _tabulated(self, rows: int) -> NDArray[np.float64]:
        """Seconds by module class and rows, from none to at least `rows`."""
        if self._by_rows.shape[1] <= rows:
            most = max(FEWEST_ROWS, 2 ** rows.bit_length())
            curves = [self._latency.of_module(kind, self._quantile) for kind in self._composition.kinds]
            self._by_rows = np.array([[0.0, *(curve.at(n) for n in range(1, most + 1))] for curve in curves])
        return self._by_rows
