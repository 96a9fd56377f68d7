"""What should headroom do beside drift? Rules for the controller, tried on a virtual clock as a hog comes and goes.

    python benchmarks/hog/rules.py [--seeds 4] [--miss-probability 0.01]

A hog is there from second 20 to 40 of 60. Meanwhile batches take `slow` times the table's latency, with lognormal
noise, and the monitor, which looks every 0.25 s, says a headroom of 0.5. Drift is the controller's own. The rules:

    none      headroom is not used: drift alone
    product   pace = headroom / drift: what drift learns of the hog is counted twice
    model     headroom is part of the prediction, so that drift learns only what headroom did not say
    once      pace = min(1, headroom / seen) / drift: `seen` is the headroom of the batches that drift has learned from,
              averaged as drift averages, so the factor is the share of the machine that was lost since

Printed for each: SLO attainment and effective accuracy (a miss counts 0), in percent, of what arrives in the hog's
first 2 s, in the rest of its stay, in the 2 s after it, and after those.
"""

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from statistics import mean

from lookup_tables.table import Latency, LookupTable, Measurement, folder
from server.allowance import Allowed
from server.budget import Budget
from server.controller import Controller
from server.drift import Drift
from server.queue import DeadlineQueue
from server.tenants import ANYONE, Tenant

START, STOP, END = 20.0, 40.0, 60.0
SPANS = ((START, START + 2), (START + 2, STOP), (STOP, STOP + 2), (STOP + 2, END))
SAMPLE_EVERY = 0.25
HOG_SAYS = 0.5
FIXED, PER_FLOP, MAX_BATCH = 1.5e-3, 3e-11, 32  # seconds a batch, seconds a FLOP: digits on two cores, roughly
HOGS = {"no harm": (1.0, 0.05), "2x": (2.0, 0.2), "3x": (3.0, 0.4), "6x": (6.0, 0.5)}


@dataclass(frozen=True, eq=False)
class Request:
    """What waits: as the controller sees it."""

    arrived: float
    allowed: Allowed
    deadline: float
    tenant: Tenant = ANYONE


@dataclass(frozen=True)
class Outcome:
    """When a request arrived, and the top-1 of its answer: 0 when it was late."""

    arrived: float
    top1: float


@dataclass(frozen=True)
class Scene:
    """A load and a hog."""

    rate: float
    slo: float
    slow: float
    noise: float


class Ignoring(Drift):
    """Without headroom."""

    def left(self, headroom: float) -> float:  # noqa: ARG002
        """All of it."""
        return 1.0


class Twice(Drift):
    """Headroom beside a drift that learns the same."""

    def left(self, headroom: float) -> float:
        """The headroom itself."""
        return headroom


class Modelled(Twice):
    """Headroom as a part of the prediction."""

    def observe(self, predicted: float, seconds: float, headroom: float = 1.0) -> None:
        """Learn only what headroom did not say."""
        super().observe(predicted / headroom, seconds)


RULES: dict[str, type[Drift]] = {"none": Ignoring, "product": Twice, "model": Modelled, "once": Drift}


def made_up_table() -> LookupTable:
    """The shipped family with latencies that are linear in FLOPs and rows."""
    shipped = LookupTable.load(folder("digits"))
    sizes = product(shipped.frontier(), (1, 2, 4, 8, 16, 32))
    took = [(e.stitch, n, FIXED + PER_FLOP * e.flops * n) for e, n in sizes]
    return replace(shipped, latency=Latency("made-up", tuple(Measurement(s, n, t, t, 100) for s, n, t in took), {}))


def simulate(drift: Drift, table: LookupTable, scene: Scene, seed: int) -> Iterator[Outcome]:
    """One run of a minute."""
    chance, arriving = random.Random(seed), random.Random(-1 - seed)
    controller = Controller(table, max_batch=MAX_BATCH, slo=scene.slo)
    controller.drifts = {False: drift}
    allowed = controller.allow(Budget())
    queue: DeadlineQueue[Request] = DeadlineQueue()
    now, arrival = 0.0, arriving.expovariate(scene.rate)
    while arrival < END or queue:
        if not queue:
            now = max(now, arrival)
        while arrival <= now and arrival < END:
            queue.push(Request(arrival, allowed, arrival + scene.slo))
            arrival += arriving.expovariate(scene.rate)
        headroom = monitored(now, chance)
        for late in queue.take_late(now):
            yield Outcome(late.arrived, 0.0)
        if not queue:
            continue
        plan = controller.plan(queue, now, headroom)
        for lost in queue.take(plan.doomed):
            yield Outcome(lost.arrived, 0.0)
        hogged = START <= now < STOP
        ratio = chance.lognormvariate(0, scene.noise if hogged else 0.05) * (scene.slow if hogged else 1.0)
        now += plan.predicted * ratio
        controller.observe(plan, plan.predicted * ratio)
        for entry, request in zip(plan.entries, queue.take(len(plan.entries)), strict=True):
            yield Outcome(request.arrived, (entry.top1 or 0.0) if now <= request.deadline else 0.0)


def monitored(now: float, chance: random.Random) -> float:
    """The last look at the machine: late by up to the interval, over which it averages, and a little noisy."""
    looked = now - now % SAMPLE_EVERY
    since = looked - (START if looked < STOP else STOP)
    share = min(1.0, max(0.0, since / SAMPLE_EVERY))
    hog = share if looked < STOP else 1.0 - share
    return min(1.0, max(0.5, 1 - (1 - HOG_SAYS) * hog - abs(chance.gauss(0, 0.03))))


def summary(outcomes: list[Outcome]) -> str:
    """Attainment and effective accuracy in every span."""
    cells = []
    for start, stop in SPANS:
        worth = [outcome.top1 for outcome in outcomes if start <= outcome.arrived < stop]
        cells.append(f"{mean(top1 > 0 for top1 in worth) * 100:6.2f} ({mean(worth) * 100:5.2f})" if worth else "-")
    return " | ".join(cells)


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--miss-probability", type=float, help="the controller's promise; none: no margin")
    arguments = parser.parse_args()
    table = made_up_table()
    dearest = table.frontier()[-1].stitch
    capacity = MAX_BATCH / table.seconds(dearest, MAX_BATCH)
    tight = 3 * table.seconds(dearest, 1)
    loads = product((2.0, 20.0, 0.3 * capacity), (tight, 0.05))
    for rate, slo in loads:
        for hog, (slow, noise) in HOGS.items():
            print(f"{rate:.0f} requests/s, SLO {slo * 1e3:.0f} ms, hog {hog}:")
            for name, drift in RULES.items():
                scene = Scene(rate, slo, slow, noise)
                drifts = [drift(arguments.miss_probability) for _ in range(arguments.seeds)]
                runs = [simulate(drift, table, scene, seed) for seed, drift in enumerate(drifts)]
                print(f"    {name:8}{summary([outcome for run in runs for outcome in run])}", flush=True)


if __name__ == "__main__":
    main()
