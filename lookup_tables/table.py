"""The lookup table: what every stitch of a family costs on a device and what it is worth."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from lookup_tables.costs import ModuleCosts
from lookup_tables.frontier import Point, pareto, upper_hull
from lookup_tables.latency import Curve, Latency, Measurement, Quantile
from lookup_tables.modules import Composition
from lookup_tables.reader import read_family, read_labels, read_latency, read_modules, read_stitches
from lookup_tables.records import Checkpoint, Entry, Family, Preprocessing, TableError, UnknownStitch

__all__ = [
    "Checkpoint",
    "Cost",
    "Entry",
    "Family",
    "Latency",
    "LookupTable",
    "Measurement",
    "Preprocessing",
    "Quantile",
    "TableError",
    "UnknownStitch",
    "folder",
]

Cost = Literal["flops", "latency"]

SHIPPED = Path(__file__).parent
MOST_MIXTURES = 100_000
"""How many mixtures' seconds a table remembers."""
SMALLEST_CAP = 1e-9  # stands for a cap of zero or less, so that an excess over it is finite


def folder(family: str) -> Path:
    """The folder of a family's table: shipped, or beside the family's file; TableError lists those that ship."""
    if family.endswith((".toml", ".json")):
        return Path(family).with_suffix("")
    families = sorted(path.parent.name for path in SHIPPED.glob("*/family.json"))
    if family not in families:
        raise TableError(f"no lookup table for family {family!r}; there are {', '.join(families)}")
    return SHIPPED / family


@dataclass(frozen=True)
class LookupTable:
    """All stitches of a family: `entries` by ascending id, `labels` by class index, `latency` once profiled.

    A stitch is worth its top-1. Where no stitch's top-1 is known, its FLOPs stand for it (dearer counts as better);
    where only some are known, the others are never chosen: they can only be asked for by id. `modules` says what the
    stitches are made of, where that is known: then the latencies of few modules predict those of all stitches.
    """

    family: Family
    labels: tuple[str, ...]
    entries: tuple[Entry, ...]
    latency: Latency | None = None
    modules: Composition | None = None

    @classmethod
    def load(cls, folder: Path, latency: Path | None = None) -> "LookupTable":
        """Reads and checks a table's folder, and the latency file of one device; TableError for any fault."""
        family = read_family(folder / "family.json")
        entries = read_stitches(folder / "stitches.csv", family.anchors)
        file = folder / "modules.csv"
        all_modules = read_modules(file, entries) if file.exists() else None
        modules = all_modules and all_modules.of(entry.route for entry in entries)
        measured = None
        if latency:
            known = frozenset(all_modules.kinds if all_modules else ())
            needed = frozenset(modules.kinds if modules else ())
            measured = read_latency(latency, frozenset(entry.stitch for entry in entries), known, needed)
        return cls(family, read_labels(folder, family), entries, measured, modules)

    def entry(self, stitch: int) -> Entry:
        """The entry of one stitch; UnknownStitch."""
        try:
            return self._by_id[stitch]
        except KeyError:
            first, last = self.entries[0].stitch, self.entries[-1].stitch
            message = f"{self.family.name} has no stitch {stitch}: ids go from {first} to {last}"
            raise UnknownStitch(message) from None

    def seconds(self, stitch: int, rows: int = 1, quantile: Quantile = "p50") -> float:
        """Predicted seconds for a batch of `rows` images, all of one stitch.

        Piecewise linear in the batch between the measured sizes (see `Curve` for the ends). A stitch that was not
        measured gets the sum over the modules it passes; where those were not measured either, the piecewise-linear and
        never falling function of FLOPs through the stitches that were, for this batch.
        UnknownStitch; TableError without a profile; ValueError for less than one row.
        """
        key = stitch, rows, quantile
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._predicted(stitch, rows, quantile)
        return known

    def _predicted(self, stitch: int, rows: int, quantile: Quantile) -> float:
        if rows < 1:
            raise ValueError(f"a batch has at least one row, not {rows}")
        latency = self._measured()
        entry = self.entry(stitch)
        if stitch in latency.stitches:
            return latency.seconds(stitch, rows, quantile)
        costs = self._module_costs(quantile)
        return costs.alone(entry.route, rows) if costs else self._over_flops(rows, quantile).at(entry.flops)

    def batch_seconds(self, counts: Mapping[int, int]) -> float:
        """Predicted median seconds for one batch of so many rows of each stitch, run in the faster way.

        That is `merged_seconds` or `grouped_seconds`; for one stitch all three are `seconds`. Faults as there.
        """
        return self._ways(counts)[0]

    def merged_seconds(self, counts: Mapping[int, int]) -> float:
        """The same with rows at one module run together: the sum over modules at the rows that pass each.

        Where measured stitches differ from what their modules predict, the mixture does by the rows' mean ratio.
        Without latencies of modules every row costs its share of a batch of its own stitch.
        """
        return self._ways(counts)[1]

    def grouped_seconds(self, counts: Mapping[int, int]) -> float:
        """The same with one stitch after another."""
        return self._ways(counts)[2]

    def capacity(self, stitch: int, max_batch: int) -> float:
        """Requests a second that one stitch answers at its best batch size up to `max_batch`."""
        return max(rows / self.seconds(stitch, rows) for rows in range(1, max_batch + 1))

    def _ways(self, counts: Mapping[int, int]) -> tuple[float, float, float]:
        """The seconds of the faster way, merged and grouped."""
        key = frozenset(counts.items())
        known = self._mixtures.get(key)
        if known is None:
            if len(self._mixtures) >= MOST_MIXTURES:
                self._mixtures.clear()
            grouped = sum(self.seconds(stitch, rows) for stitch, rows in key)
            merged = self._merged(counts) if len(key) > 1 else grouped
            known = self._mixtures[key] = min(merged, grouped), merged, grouped
        return known

    def _merged(self, counts: Mapping[int, int]) -> float:
        total = sum(counts.values())
        costs = self._module_costs("p50")
        if costs is None:
            return sum(rows / total * self.seconds(stitch, total) for stitch, rows in counts.items())
        routes = {stitch: self.entry(stitch).route for stitch in counts}
        off = sum(
            rows / total * (self.seconds(stitch, total) / costs.alone(routes[stitch], total) - 1)
            for stitch, rows in counts.items()
            if stitch in self._measured().stitches
        )
        return costs.mixed((routes[stitch], rows) for stitch, rows in counts.items()) * (1 + off)

    def cost(self, stitch: int, by: Cost = "flops", rows: int = 1) -> float:
        """What a stitch costs: FLOPs of one image, or median seconds for a batch of `rows`."""
        return self.entry(stitch).flops if by == "flops" else self.seconds(stitch, rows)

    def frontier(self, cost: Cost = "flops", rows: int = 1) -> tuple[Entry, ...]:
        """The Pareto set by ascending cost: each entry is worth more than all cheaper ones.

        At equal cost the worthier stays, then the one with the lower id. `rows` matters for latency alone.
        """
        return tuple(point.entry for point in pareto(self._points(cost, rows)))

    def hull(self, cost: Cost = "flops", rows: int = 1) -> tuple[Entry, ...]:
        """The frontier's upper convex hull: the entries that no mixture of two others matches in (cost, worth)."""
        return tuple(point.entry for point in upper_hull(pareto(self._points(cost, rows))))

    def best(
        self,
        max_flops: float | None = None,
        max_seconds: float | None = None,
        min_top1: float | None = None,
        rows: int = 1,
    ) -> Entry | None:
        """The worthiest entry within all caps (FLOPs an image, median seconds a batch of `rows`, top-1 a fraction).

        Of equals the one with fewer FLOPs, then the lower id. None if no entry meets them all; see `nearest`.
        """
        entry = self.nearest(max_flops, max_seconds, min_top1, rows)
        return entry if self._excess(entry, max_flops, max_seconds, min_top1, rows) <= 0 else None

    def nearest(
        self,
        max_flops: float | None = None,
        max_seconds: float | None = None,
        min_top1: float | None = None,
        rows: int = 1,
    ) -> Entry:
        """The entry whose worst excess over a cap, relative to that cap, is least: `best` where all can be met."""

        def order(entry: Entry) -> tuple[float, float, int, int]:
            excess = self._excess(entry, max_flops, max_seconds, min_top1, rows)
            return excess, -_worth(entry), entry.flops, entry.stitch

        return min(self._ranked, key=order)

    def cheapest(self, min_top1: float | None = None, max_flops: float | None = None) -> Entry | None:
        """The entry with the fewest FLOPs that meets both caps, of equals the worthiest; None if none does."""
        met = [e for e in self._ranked if self._excess(e, max_flops, None, min_top1, 1) <= 0]
        return min(met, key=lambda e: (e.flops, -_worth(e), e.stitch), default=None)

    def _excess(
        self, entry: Entry, max_flops: float | None, max_seconds: float | None, min_top1: float | None, rows: int
    ) -> float:
        """The worst relative excess over a cap; 0 if all are met."""
        excess = [0.0]
        if max_flops is not None:
            excess.append(_over(entry.flops, max_flops))
        if max_seconds is not None:
            excess.append(_over(self.seconds(entry.stitch, rows), max_seconds))
        if min_top1 is not None:
            excess.append(1.0 if entry.top1 is None else _under(entry.top1, min_top1))
        return max(excess)

    def _points(self, cost: Cost, rows: int) -> list[Point]:
        return [Point(self.cost(e.stitch, cost, rows), _worth(e), e) for e in self._ranked]

    def _measured(self) -> Latency:
        if self.latency is None:
            raise TableError(f"{self.family.name} has no latency for this device; run `stitchserve profile`")
        return self.latency

    def _over_flops(self, rows: int, quantile: Quantile) -> Curve:
        key = rows, quantile
        if key not in self._curves:
            flops = {e.stitch: e.flops for e in self.entries}
            self._curves[key] = self._measured().over_flops(flops, rows, quantile)
        return self._curves[key]

    def _module_costs(self, quantile: Quantile) -> ModuleCosts | None:
        if self.modules is None or self.latency is None or not self.latency.modules:
            return None
        if quantile not in self._costs:
            self._costs[quantile] = ModuleCosts(self.modules, self.latency, quantile)
        return self._costs[quantile]

    @cached_property
    def _costs(self) -> dict[Quantile, ModuleCosts]:
        return {}

    @cached_property
    def _known(self) -> dict[tuple[int, int, Quantile], float]:
        return {}

    @cached_property
    def _mixtures(self) -> dict[frozenset[tuple[int, int]], tuple[float, float, float]]:
        return {}

    @cached_property
    def _by_id(self) -> dict[int, Entry]:
        return {entry.stitch: entry for entry in self.entries}

    @cached_property
    def _ranked(self) -> tuple[Entry, ...]:
        return tuple(e for e in self.entries if e.top1 is not None) or self.entries

    @cached_property
    def _curves(self) -> dict[tuple[int, Quantile], Curve]:
        return {}


def _worth(entry: Entry) -> float:
    return float(entry.flops) if entry.top1 is None else entry.top1


def _over(used: float, cap: float) -> float:
    return 0.0 if used <= cap else used / max(cap, SMALLEST_CAP) - 1


def _under(reached: float, least: float) -> float:
    return 0.0 if reached >= least else 1 - reached / least
