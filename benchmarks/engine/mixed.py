"""What switching between stitches costs, and what running a mixture together gains.

    python -m benchmarks.engine.mixed                                    # digits, DeiT-Ti/S/B at 96 and at 224 pixels
    python -m benchmarks.engine.mixed --threads 1 --clock cpu            # where others are at work: processor time
    python -m benchmarks.engine.mixed --device cuda --rows 8,32,64 --alike 2,0 --lanes

Switching: batches of one stitch each, the stitch changing every batch, against the same batches sorted by stitch.
Mixing: a batch of rows drawn evenly over the frontier, each stitch once before any twice; rows at the same module
together (merged), against one stitch after another (grouped), and each alone. With `--alike` a batch has so many
neighbours of the frontier instead, as the controller mixes them; with `--lanes` as many batches run at once as the
engine takes, and a batch's share of the time counts. In turns; ratios are of each round. On a GPU all is recorded
first, as before serving. Where this device's latencies are in the table's folder, or in `--latency` for one case, it
says what the table's choice loses.
"""

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from benchmarks.engine.speed import spread
from benchmarks.engine.worker import engine
from lookup_tables.costs import Way
from lookup_tables.table import LookupTable, folder
from lookup_tables.writer import latency_path
from server.engine import Engine
from server.latencies import on_all_lanes
from server.process import prepare
from stitching.wavefront import order

CASES = (("digits", 64), ("deit_ti_s_b", 96), ("deit_ti_s_b", 224))
CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="8,32")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument("--cases", default=",".join(f"{name}:{size}" for name, size in CASES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--alike", default="0", help="neighbours, several with commas; 0: the whole frontier")
    parser.add_argument("--lanes", action="store_true")
    parser.add_argument("--latency", type=Path)
    parser.add_argument("--only", choices=("switching", "mixing"))
    arguments = parser.parse_args()
    if arguments.latency and not arguments.latency.is_file():
        parser.error(f"--latency: there is no {arguments.latency}")
    prepare()
    clock = CLOCKS[arguments.clock]
    for name, size in (case.split(":") for case in arguments.cases.split(",")):
        chosen = engine(name, int(size), arguments.dtype, arguments.threads, arguments.device)
        given = arguments.latency or latency_path(folder(name), chosen.device_slug)
        table = LookupTable.load(folder(name), given if given.is_file() else None)
        stitches = [entry.stitch for entry in table.frontier()]
        if chosen.staged:
            chosen.warm_up(stitches)
            for record in chosen.recordings(stitches):
                record()
        if arguments.only != "mixing":
            switching(chosen, stitches, arguments.rounds, clock)
        cases = product(arguments.alike.split(","), arguments.rows.split(","))
        for alike, rows in cases if arguments.only != "switching" else ():
            mixing(chosen, table, int(rows), arguments.rounds, clock, alike=int(alike), lanes=arguments.lanes)


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
    chosen: Engine,
    table: LookupTable,
    rows: int,
    rounds: int,
    clock: Callable[[], float],
    *,
    alike: int,
    lanes: bool,
) -> None:
    stitches = [entry.stitch for entry in table.frontier()]
    images, draw = pictures(chosen, rows), random.Random(0)
    took: dict[Way | None, list[float]] = {"merged": [], "grouped": []} | ({} if lanes else {None: []})
    mixtures = []
    count = min(alike or len(stitches), len(stitches))
    for _ in range(rounds + 1):
        first = draw.randrange(len(stitches) - count + 1)
        among = draw.sample(stitches[first : first + count], count)
        mixtures.append((among + draw.choices(among, k=rows))[:rows])
    for turn, mixture in enumerate(mixtures):
        for way, seconds in took.items():
            start = clock()
            batch = partial(run, chosen, images, mixture, way)
            times = 1
            if lanes:
                times = on_all_lanes(chosen, batch)
            else:
                batch()
            if turn:  # the first one warms up
                seconds.append((clock() - start) / times)
    merged, grouped = zip(*(calls(chosen, mixture) for mixture in mixtures[1:]), strict=True)
    over = [
        f"{spread([a / b for a, b in zip(seconds, took['merged'], strict=True)])} times as fast as {way or 'alone'}"
        for way, seconds in took.items()
        if way != "merged"
    ]
    print(
        f"{label_of(chosen)}, {rows} rows of {count} stitches: merged {', '.join(over)}; module calls "
        f"{median(merged):.0f} merged and {median(grouped):.0f}",
        flush=True,
    )
    if table.latency:
        ways = [table.merged_seconds(Counter(m)) <= table.grouped_seconds(Counter(m)) for m in mixtures[1:]]
        lost = [(a if way else b) / min(a, b) for way, a, b in zip(ways, took["merged"], took["grouped"], strict=True)]
        print(f"    the table merges {sum(ways)} of {len(ways)}, and takes {spread(lost)} times the faster way")


def run(chosen: Engine, images: list[Tensor], mixture: list[int], way: Way | None) -> None:
    """One batch, one way, or each image alone."""
    if way:
        chosen.run(images, mixture, way)
    else:
        for image, stitch in zip(images, mixture, strict=True):
            chosen.run([image], [stitch])


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
