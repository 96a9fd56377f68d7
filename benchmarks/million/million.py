"""A million requests for mixed stitches: is each answered by the stitch that it is said to be, as if it had been alone?

    python -m benchmarks.million.million [--requests 1000000]

DeiT-Ti/S/B's 71 stitches at widths of 16, 24 and 32, random weights, and the server's own queue, controller and engine,
without HTTP. Half of the requests pin a stitch, the others cap FLOPs or nothing; up to `inside` wait at once, so that
batches mix stitches. Every answer is compared with that of its stitch for its image alone, taken before.
"""

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

from lookup_tables.latency import Latency, Measurement
from lookup_tables.table import LookupTable, folder
from server.batcher import Answer, Batcher
from server.budget import Budget
from server.controller import Controller
from server.engine import Engine, Ranking
from stitching.families import AnchorSpec, Family, Preprocessing
from stitching.model import SNNet

SIZE, MAX_BATCH, CLASSES, IMAGES, CAPS = 32, 32, 10, 16, 20
SLO = 10.0  # seconds
CLOSE = 1e-4  # of a probability


def small() -> Family:
    """The family."""
    timm = {"img_size": SIZE, "patch_size": 8, "depth": 12, "num_heads": 2}
    specs = [AnchorSpec(f"s{w}", "vit_tiny_patch16_224", timm | {"embed_dim": w}) for w in (16, 24, 32)]
    return Family("small", tuple(specs), classes=CLASSES, preprocessing=Preprocessing(size=SIZE))


def table() -> LookupTable:
    """DeiT's published one, with latencies made up: what matters is that load changes the choice."""
    known = LookupTable.load(folder("deit_ti_s_b"), None)
    times = tuple(
        Measurement(entry.stitch, rows, (1e-3 + entry.flops * 2e-13) * (0.5 + rows / 2), 1.0, 1)
        for entry in known.entries
        for rows in (1, 8, MAX_BATCH)
    )
    return replace(known, latency=Latency("made-up", times, {}))


def farthest(one: Ranking, other: Ranking) -> float:
    """The largest difference of a class's probability."""
    mine, its = (dict(zip(each.indices, each.probabilities, strict=True)) for each in (one, other))
    return max(abs(mine.get(index, 0.0) - its.get(index, 0.0)) for index in mine.keys() | its.keys())


class Judge:
    """Compares answers with those that were taken alone."""

    def __init__(self, alone: dict[tuple[int, int], Ranking]) -> None:
        self._alone = alone
        self.wrong: Counter[str] = Counter()
        self.stitches: Counter[int] = Counter()
        self.worst = 0.0

    def see(self, image: int, budget: Budget, answer: Answer[Ranking]) -> None:
        """One answer."""
        entry = answer.entry
        self.stitches[entry.stitch] += 1
        off = farthest(answer.result, self._alone[image, entry.stitch])
        self.worst = max(self.worst, off)
        self.wrong["not its stitch's answer"] += off > CLOSE
        self.wrong["not the pinned stitch"] += budget.stitch not in {None, entry.stitch}
        self.wrong["beyond the cap"] += not budget.met_by(entry.flops, entry.top1)


async def ask(batcher: Batcher[Tensor, Ranking], controller: Controller, images: list[Tensor], judge: Judge,
              given: argparse.Namespace) -> None:  # fmt: skip
    """All requests, `inside` at once."""
    generator, places = random.Random(given.seed), asyncio.Semaphore(given.inside)
    flops = sorted(entry.flops for entry in controller.frontier)
    budgets = [Budget(stitch=entry.stitch) for entry in controller.table.entries]
    caps = [Budget(max_flops=generator.uniform(flops[0], flops[-1])) for _ in range(CAPS)] + [Budget()] * CAPS

    async def one() -> None:
        try:
            image, budget = generator.randrange(IMAGES), generator.choice(generator.choice((budgets, caps)))
            allowed = controller.allow(budget)
            judge.see(image, budget, await batcher.submit(images[image], allowed, time.monotonic() + SLO))
        finally:
            places.release()

    async with asyncio.TaskGroup() as group:
        for _ in tqdm(range(given.requests), unit="request", mininterval=5, disable=None):
            await places.acquire()
            group.create_task(one())


async def run(given: argparse.Namespace) -> bool:
    """Whether all was right."""
    torch.manual_seed(given.seed)
    engine = Engine(SNNet(small()), torch.device("cpu"), threads=given.threads, dtype="float32", max_batch=MAX_BATCH)
    controller = Controller(table(), max_batch=MAX_BATCH, slo=SLO)
    images = [torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8) for _ in range(IMAGES)]
    ids = [entry.stitch for entry in controller.table.entries]
    alone = {(i, s): engine.run([image], [s])[0] for i, image in enumerate(images) for s in ids}
    apart = [farthest(alone[0, a], alone[0, b]) > 2 * CLOSE for a in ids for b in ids if a < b]
    judge, mixed = Judge(alone), Counter[int]()
    with ThreadPoolExecutor(1) as thread:
        batcher: Batcher[Tensor, Ranking] = Batcher(
            engine, controller, thread, on_batch=lambda plan: mixed.update([len({e.stitch for e in plan.entries})])
        )
        loop, started = asyncio.create_task(batcher.run()), time.perf_counter()
        await ask(batcher, controller, images, judge, given)
        seconds = time.perf_counter() - started
        batcher.stop()
        await loop
    wrong = {what: count for what, count in judge.wrong.items() if count}
    print(
        f"{judge.stitches.total()} answers in {seconds:.0f} s by {len(judge.stitches)} stitches; wrong: {wrong or None}"
    )
    print(
        f"largest difference of a probability {judge.worst:.1e}; {sum(apart) / len(apart):.1%} of the pairs of stitches"
    )
    print(f"differ by more than {2 * CLOSE:g}; {mixed.total()} batches of {min(mixed)} to {max(mixed)} stitches")
    return not wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--inside", type=int, default=64, help="so many wait or run at once")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    sys.exit(not asyncio.run(run(parser.parse_args())))
