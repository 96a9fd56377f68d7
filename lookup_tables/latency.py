"""Measured latency, and the piecewise-linear curves that fill what was not measured."""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Literal

from lookup_tables.modules import LAUNCH, counted_as

Quantile = Literal["p50", "p99"]


@dataclass(frozen=True)
class Curve:
    """A piecewise-linear function of x > 0 through points whose x ascend and whose y are positive.

    Below the first point it is flat: a smaller batch or network is never promised more than was measured. Above the
    last it goes on with the last piece's slope, kept in (0, y/x]: seconds that are an overhead plus a rate cannot grow
    faster than y/x, and measured noise must not make more work free.
    """

    xs: tuple[float, ...]
    ys: tuple[float, ...]

    @classmethod
    def through(cls, points: Iterable[tuple[float, float]]) -> "Curve":
        """The curve through (x, y) points in any order; of several y at one x the largest counts."""
        largest = dict(sorted(points))
        return cls(tuple(largest), tuple(largest.values()))

    def rising(self) -> "Curve":
        """This curve with every dip filled: y never falls."""
        return Curve(self.xs, tuple(accumulate(self.ys, max)))

    def at(self, x: float) -> float:
        """The value at x."""
        i = bisect_right(self.xs, x) - 1
        if i < 0:
            return self.ys[0]
        slope = self._last_slope if i == len(self.xs) - 1 else self._slope(i)
        return self.ys[i] + slope * (x - self.xs[i])

    def _slope(self, i: int) -> float:
        return (self.ys[i + 1] - self.ys[i]) / (self.xs[i + 1] - self.xs[i])

    @property
    def _last_slope(self) -> float:
        overall = self.ys[-1] / self.xs[-1]
        last = self._slope(len(self.xs) - 2) if len(self.xs) > 1 else overall
        return min(last, overall) if last > 0 else overall


@dataclass(frozen=True)
class Measurement:
    """Seconds that one batch of one stitch took: median and 99th percentile over `runs`."""

    stitch: int
    batch: int
    p50: float
    p99: float
    runs: int


@dataclass(frozen=True)
class ModuleMeasurement:
    """Seconds that a batch took in one module of a class, measured within whole batches; as `Measurement` otherwise."""

    module: str
    batch: int
    p50: float
    p99: float
    runs: int


@dataclass(frozen=True)
class Latency:
    """What one device measured; `device` is a slug, `details` says under which conditions (dtype, threads, ...).

    With `modules`, those of every class that the family has, `measurements` are of the stitches that they do not
    predict well.
    """

    device: str
    measurements: tuple[Measurement, ...]
    details: Mapping[str, str] = field(default_factory=dict)
    modules: tuple[ModuleMeasurement, ...] = ()

    @property
    def stitches(self) -> Collection[int]:
        """The stitches that were measured."""
        return self._by_stitch.keys()

    def seconds(self, stitch: int, rows: int, quantile: Quantile = "p50") -> float:
        """Seconds for a batch of `rows` of a measured stitch; KeyError for one that was not measured."""
        return self._curves[quantile][stitch].at(rows)

    def of_module(self, module: str, quantile: Quantile = "p50") -> Curve:
        """Seconds in one module of that class as a rising function of rows; KeyError for one that was not measured.

        As `counted_as` says: in files of before last blocks were cheaper than others, they count as those.
        """
        measured = self._by_module[counted_as(module, self._by_module)]
        return Curve.through((m.batch, getattr(m, quantile)) for m in measured).rising()

    @cached_property
    def launch(self) -> float:
        """The least median seconds of a module call in a mixture; 0 where it was not measured, or less than modules."""
        return min((m.p50 for m in self._by_module.get(LAUNCH, ())), default=0.0)

    def over_flops(self, flops: Mapping[int, int], rows: int, quantile: Quantile = "p50") -> Curve:
        """Seconds for a batch of `rows` as a rising function of FLOPs, given each stitch's FLOPs."""
        return Curve.through((flops[s], self.seconds(s, rows, quantile)) for s in self.stitches).rising()

    @cached_property
    def _curves(self) -> dict[Quantile, dict[int, Curve]]:
        return {
            "p50": {s: Curve.through((m.batch, m.p50) for m in ms) for s, ms in self._by_stitch.items()},
            "p99": {s: Curve.through((m.batch, m.p99) for m in ms) for s, ms in self._by_stitch.items()},
        }

    @cached_property
    def _by_stitch(self) -> dict[int, list[Measurement]]:
        measured: dict[int, list[Measurement]] = {}
        for m in self.measurements:
            measured.setdefault(m.stitch, []).append(m)
        return measured

    @cached_property
    def _by_module(self) -> dict[str, list[ModuleMeasurement]]:
        measured: dict[str, list[ModuleMeasurement]] = {}
        for m in self.modules:
            measured.setdefault(m.module, []).append(m)
        return measured
