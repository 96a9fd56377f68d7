"""What switching between stitches costs, and what running a mixture together gains.

    python -m benchmarks.engine.mixed                                    # digits, DeiT-Ti/S/B at 96 and at 224 pixels
    python -m benchmarks.engine.mixed --threads 1 --clock cpu            # where others are at work: processor time
    python -m benchmarks.engine.mixed --device cuda --rows 8,32,64 --alike 2

Switching: batches of one stitch each, the stitch changing every batch, against the same batches sorted by stitch.
Mixing: a batch of rows drawn evenly over the frontier, rows at the same module together (merged), against one stitch
after another (grouped), and each alone. With `--alike` a batch has so many neighbours of the frontier instead, as the
controller mixes them. In turns; ratios are of each round. On a GPU all is recorded first, as before serving.
"""

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from statistics import median

import torch
from torch import Tensor

from benchmarks.engine.speed import spread
from benchmarks.engine.worker import engine
from lookup_tables.table import LookupTable, folder
from server.engine import Engine
from server.process import prepare
from stitching.wavefront import order

CASES = (("digits", 64), ("deit_ti_s_b", 96), ("deit_ti_s_b", 224))
CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


class Always:
    """Costs that have a mixture run one way."""

    def __init__(self, way: str) -> None:
        self.way = way

    def merged_seconds(self, _: Mapping[int, int]) -> float:
        return float(self.way != "merged")

    def grouped_seconds(self, _: Mapping[int, int]) -> float:
        return float(self.way != "grouped")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="8,32")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument("--cases", default=",".join(f"{name}:{size}" for name, size in CASES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--alike", type=int)
    parser.add_argument("--only", choices=("switching", "mixing"))
    arguments = parser.parse_args()
    prepare()
    clock = CLOCKS[arguments.clock]
    for name, size in (case.split(":") for case in arguments.cases.split(",")):
        chosen = engine(name, int(size), arguments.dtype, arguments.threads, arguments.device)
        stitches = [entry.stitch for entry in LookupTable.load(folder(name)).frontier()]
        if chosen.staged:
            chosen.warm_up(stitches)
        if arguments.only != "mixing":
            switching(chosen, stitches, arguments.rounds, clock)
        for rows in map(int, arguments.rows.split(",")) if arguments.only != "switching" else ():
            mixing(chosen, stitches, rows, arguments.rounds, clock, alike=arguments.alike)


def switching(chosen: Engine, stitches: list[int], rounds: int, clock: Callable[[], float], rows: int = 4) -> None:
    images = pictures(chosen, rows)
    once = stitches[:: max(1, len(stitches) // 8)]
    sorted_ = [stitch for stitch in once for _ in range(4)]
    alternating = once * 4
    weights = {name: value.data_ptr() for name, value in chosen.model.state_dict().items()}
    ratios = []
    for turn in range(rounds + 1):
        seconds = {}
        for label, sequence in (("sorted", sorted_), ("alternating", alternating)):
            start = clock()
            for stitch in sequence:
                chosen.run(images, [stitch] * rows)
            seconds[label] = clock() - start
        if turn:  # the first one warms up
            ratios.append(seconds["alternating"] / seconds["sorted"])
    moved = weights != {name: value.data_ptr() for name, value in chosen.model.state_dict().items()}
    print(
        f"{label_of(chosen)}: {len(once)} stitches in turns of {rows} rows take {spread(ratios)} times what they take "
        f"sorted; weights {'moved' if moved else 'where they were'}",
        flush=True,
    )


def mixing(
    chosen: Engine, stitches: list[int], rows: int, rounds: int, clock: Callable[[], float], *, alike: int | None
) -> None:
    images, draw = pictures(chosen, rows), random.Random(0)
    took: dict[str, list[float]] = {"merged": [], "grouped": [], "alone": []}
    mixtures = []
    for _ in range(rounds + 1):
        first = draw.randrange(len(stitches) - alike + 1) if alike else 0
        among = stitches[first : first + alike] if alike else stitches
        mixtures.append([draw.choice(among) for _ in range(rows)])
    for turn, mixture in enumerate(mixtures):
        for way, seconds in took.items():
            start = clock()
            if way == "alone":
                for image, stitch in zip(images, mixture, strict=True):
                    chosen.run([image], [stitch])
            else:
                chosen.costs = Always(way)
                chosen.run(images, mixture)
            if turn:  # the first one warms up
                seconds.append(clock() - start)
    merged, grouped = zip(*(calls(chosen, mixture) for mixture in mixtures[1:]), strict=True)
    over = {
        way: spread([a / b for a, b in zip(took[way], took["merged"], strict=True)]) for way in ("grouped", "alone")
    }
    print(
        f"{label_of(chosen)}, {rows} rows of {alike or len(stitches)} stitches: merged {over['grouped']} times as fast "
        f"as grouped, {over['alone']} as alone; module calls {median(merged):.0f} merged and {median(grouped):.0f}",
        flush=True,
    )


def calls(chosen: Engine, mixture: list[int]) -> tuple[int, int]:
    """Module calls of a mixture, merged and grouped."""
    paths = [chosen.model.path(chosen.model.stitches[stitch]) for stitch in Counter(mixture)]
    return len(order(paths)), sum(map(len, paths))


def pictures(chosen: Engine, rows: int) -> list[Tensor]:
    shape = (3, chosen.image_size, chosen.image_size)
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in range(rows)]


def label_of(chosen: Engine) -> str:
    return f"{chosen.model.family.name} at {chosen.image_size} px in {chosen.precision.variant.name}"


if __name__ == "__main__":
    main()
