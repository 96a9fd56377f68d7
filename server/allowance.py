"""From a budget to the stitches that it admits, decided once, when a request arrives."""

import re
from dataclasses import dataclass

from lookup_tables.table import Entry, UnknownStitch
from server.batch_costs import Costs
from server.budget import Budget
from server.errors import Infeasible
from server.errors import UnknownStitch as UnknownStitchRefusal

UNIT = re.compile("[A-Za-z]+$")


@dataclass(frozen=True, eq=False)
class Allowed:
    """The stitches that one budget admits, by ascending cost and worth, and why the last of them is the best.

    `ranks` are their places on the frontier; a pinned stitch may have none. `floor`: seconds of a row of the cheapest.
    """

    budget: Budget
    entries: tuple[Entry, ...]
    ranks: tuple[int, ...]
    floor: float
    reason: str
    floor_reason: str

    def why(self, entry: Entry, limit: object) -> str:
        """Why this entry was chosen, where `limit`, as text, tells what time there was."""
        if entry is self.entries[-1]:
            return self.reason
        if entry is self.entries[0]:
            return f"{self.floor_reason}; no time for more in {limit}"
        return f"best stitch that fits {limit}"


def allow(costs: Costs, budget: Budget, *, nearest: bool = False) -> Allowed:
    """What the budget admits on an idle machine.

    Raises UnknownStitch for a pinned id that does not exist and Infeasible, naming the nearest stitch, when nothing is
    admitted; with `nearest` that stitch is taken instead.
    """
    if budget.stitch is not None:
        return _pinned(costs, budget.stitch, budget, nearest)
    within = tuple(entry for entry in costs.frontier if _meets(costs, entry, budget))
    if within:
        return _allowed(costs, budget, within, _best_reason(budget, within[-1]), _floor_reason(budget))
    entry = costs.table.nearest(budget.max_flops, budget.deadline, budget.min_top1)
    if nearest:
        reason = f"nearest stitch; none meets {', '.join(budget.terms())}"
        return _allowed(costs, budget, (entry,), reason, reason)
    raise Infeasible(_infeasible(costs, budget, entry), nearest_stitch=entry.stitch, nearest=_facts(entry))


def _allowed(costs: Costs, budget: Budget, entries: tuple[Entry, ...], reason: str, floor_reason: str) -> Allowed:
    ranks = tuple(costs.rank[entry.stitch] for entry in entries if entry.stitch in costs.rank)
    return Allowed(budget, entries, ranks, costs.row(entries[0].stitch), reason, floor_reason)


def _pinned(costs: Costs, stitch: int, budget: Budget, nearest: bool) -> Allowed:
    try:
        entry = costs.table.entry(stitch)
    except UnknownStitch as error:
        raise UnknownStitchRefusal(str(error), field="stitch") from None
    if not _meets(costs, entry, budget) and not nearest:
        raise Infeasible(_infeasible(costs, budget, entry), nearest_stitch=entry.stitch, nearest=_facts(entry))
    reason = f"stitch {stitch} as asked"
    return _allowed(costs, budget, (entry,), reason, reason)


def _meets(costs: Costs, entry: Entry, budget: Budget) -> bool:
    in_time = budget.deadline is None or costs.seconds(entry.stitch, 1) <= budget.deadline
    return in_time and budget.met_by(entry.flops, entry.top1)


def _infeasible(costs: Costs, budget: Budget, nearest: Entry) -> str:
    asked, took = ", ".join(budget.terms()), costs.seconds(nearest.stitch, 1)
    late = budget.deadline is not None and took > budget.deadline
    remedy = "allow more time" if late else "relax the budget, or ask /classify with on_infeasible=nearest"
    described = f"{_describe(nearest)}, {took * 1e3:.3g} ms"
    if budget.stitch is not None:
        return f"stitch {budget.stitch} does not meet {asked}: it has {described}; {remedy}"
    if budget.min_top1 is not None and nearest.top1 is None:
        return f"no top-1 is known for family {costs.table.family.name!r}; budget by FLOPs or time"
    return f"no stitch meets {asked}; stitch {nearest.stitch} comes nearest: {described}; {remedy}"


def _best_reason(budget: Budget, best: Entry) -> str:
    caps = Budget(max_flops=budget.max_flops, deadline=budget.deadline).terms()
    if caps:
        return f"best stitch within {' and '.join(map(_spaced, caps))}"
    return "dearest stitch; no top-1 is known" if best.top1 is None else "most accurate stitch"


def _floor_reason(budget: Budget) -> str:
    reaching = f" reaching {budget.min_top1 * 100:g}%" if budget.min_top1 is not None else ""
    return f"cheapest stitch{reaching}"


def _spaced(term: str) -> str:
    """`2GFLOPs` -> `2 GFLOPs`."""
    return UNIT.sub(r" \g<0>", term)


def _describe(entry: Entry) -> str:
    top1 = "top-1 not known" if entry.top1 is None else f"{entry.top1 * 100:.2f}% top-1"
    return f"{entry.flops / 1e9:.4g} GFLOPs, {top1}"


def _facts(entry: Entry) -> dict[str, object]:
    """What a program needs to know of a stitch."""
    top1 = None if entry.top1 is None else round(entry.top1 * 100, 4)
    return {"id": entry.stitch, "name": entry.route, "flops": entry.flops, "top1": top1}
