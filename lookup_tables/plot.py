"""Draws a lookup table: every stitch by cost and top-1, the frontier joined."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from lookup_tables.table import Cost, Entry, LookupTable, TableError

logging.getLogger("matplotlib").setLevel(logging.WARNING)  # tells of every scan for fonts

SUFFIXES = (".png", ".svg")


def plot(table: LookupTable, out: Path, cost: Cost = "flops", rows: int = 1) -> None:
    """Writes the picture as PNG or SVG, by the suffix of `out`; ValueError for another suffix.

    `cost` is the horizontal axis: FLOPs of one image, or median latency of a batch of `rows` images.
    TableError if no top-1 is known, or for latency without a profile.
    """
    form = picture_format(out)
    known = [entry for entry in table.entries if entry.top1 is not None]
    if not known:
        raise TableError(f"{table.family.name} has no top-1 to draw; measure it with `stitchserve evaluate`")
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    _draw(figure.add_subplot(), table, known, cost, rows)
    figure.savefig(out, format=form)


def picture_format(out: Path) -> str:
    """`png` or `svg`, by the suffix of `out`; ValueError for another one."""
    if out.suffix.lower() not in SUFFIXES:
        raise ValueError(f"cannot draw {out.name}: the file's name must end in {' or '.join(SUFFIXES)}")
    return out.suffix.lower().removeprefix(".")


def _draw(axes: Axes, table: LookupTable, known: Sequence[Entry], cost: Cost, rows: int) -> None:
    unit, label = _axis(min(table.cost(e.stitch, cost, rows) for e in known), cost, rows)
    at = {e: (table.cost(e.stitch, cost, rows) / unit, 100 * (e.top1 or 0.0)) for e in known}
    frontier = [at[e] for e in table.frontier(cost, rows)]
    anchors = {e.anchor: xy for e, xy in at.items() if e.anchor is not None}
    axes.plot(*_xy(at.values()), "o", markersize=4, color="tab:gray", alpha=0.4, label=f"{len(at)} stitches")
    axes.plot(*_xy(frontier), "o-", markersize=4, color="tab:blue", label=f"frontier, {len(frontier)} stitches")
    axes.plot(*_xy(anchors.values()), "*", markersize=10, color="tab:red", label="anchors")
    for name, xy in anchors.items():
        ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5}  # lines may run through a name
        axes.annotate(name, xy, xytext=(0, 8), textcoords="offset points", ha="center", parse_math=False, bbox=ground)
    axes.set_xscale("log")
    axes.margins(x=0.08, y=0.1)
    axes.xaxis.set_major_formatter(_Plain())
    axes.xaxis.set_minor_formatter(_Plain())
    axes.set(xlabel=label, ylabel="top-1 (%)", title=table.family.name)
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(loc="lower right")


class _Plain(LogFormatter):
    """Numbers such as 0.7, where the library would write 7e-01."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def _xy(points: Iterable[tuple[float, float]]) -> tuple[list[float], list[float]]:
    listed = list(points)
    return [x for x, _ in listed], [y for _, y in listed]


def _axis(least: float, cost: Cost, rows: int) -> tuple[float, str]:
    """The unit of the cost axis, in FLOPs or seconds, and the axis's label."""
    if cost == "latency":
        images = "one image" if rows == 1 else f"a batch of {rows} images"
        return 1e-3, f"median latency of {images} (ms)"
    return (1e9, "GFLOPs (multiply-adds)") if least >= 1e9 else (1e6, "MFLOPs (multiply-adds)")
