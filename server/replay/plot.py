"""Draws replays: load, level and misses over time, one column for each trace and one line for each run."""

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lookup_tables.plot import picture_format
from server.replay.report import Report, Second

Panel = tuple[str, Callable[[Second], float]]
NOTHING = float("nan")  # matplotlib leaves a gap

LOAD: Panel = ("requests/s", lambda row: row.requests)
TOP1: Panel = ("mean top-1 in time (%)", lambda row: NOTHING if row.top1 is None else 100 * row.top1)
FLOPS: Panel = ("mean GFLOPs in time", lambda row: NOTHING if row.flops is None else row.flops / 1e9)
MISSES: Panel = ("misses/s", lambda row: row.late + row.unanswered)


def plot(reports: Sequence[Report], out: Path) -> None:
    """Writes the picture as PNG or SVG, by the suffix of `out`; ValueError for another suffix or without reports.

    The level is the top-1 served, or the FLOPs where no top-1 is known.
    """
    form = picture_format(out)
    if not reports:
        raise ValueError("no replay to draw")
    traces = list(dict.fromkeys(each.trace for each in reports))
    names = list(dict.fromkeys(each.name for each in reports))
    colours = dict(zip(names, cycle(f"C{i}" for i in range(10)), strict=False))
    panels = (LOAD, _level(reports), MISSES)
    figure = Figure(figsize=(2 + 6 * len(traces), 7), dpi=150, layout="constrained")
    axes = figure.subplots(len(panels), len(traces), sharex="col", sharey="row", squeeze=False)
    for column, trace in enumerate(traces):
        shown = [each for each in reports if each.trace == trace]
        axes[0][column].set_title(trace, parse_math=False)
        axes[-1][column].set_xlabel("seconds")
        for row, panel in enumerate(panels):
            _draw(axes[row][column], panel, shown[:1] if panel is LOAD else shown, colours)
    for row, (label, _) in enumerate(panels):
        axes[row][0].set_ylabel(label)
    axes[1][0].legend(loc="best", fontsize="small")
    figure.savefig(out, format=form)


def _level(reports: Sequence[Report]) -> Panel:
    known = any(row.top1 is not None for each in reports for row in each.series)
    return TOP1 if known else FLOPS


def _draw(axes: Axes, panel: Panel, reports: Sequence[Report], colours: dict[str, str]) -> None:
    value = panel[1]
    for each in reports:
        # Load is the same for every run of a trace, so it belongs to none of them.
        colour = "tab:gray" if panel is LOAD else colours[each.name]
        axes.stairs([value(row) for row in each.series], baseline=None, color=colour, label=each.name)
    axes.grid(visible=True, alpha=0.2)
    if panel in {LOAD, MISSES}:
        axes.set_ylim(bottom=0)
