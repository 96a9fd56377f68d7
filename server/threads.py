"""How many CPU threads compute a batch: as many as are worth their cores, by measurement."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch

from lookup_tables.writer import write_whole
from server.cgroups import cpus
from server.trials import Clock, in_turns, samples
from stitching import SNNet

WORTH = 1.4
"""How many times as fast twice the threads must be. Cores that the engine leaves decode images and speak HTTP; threads
that wait for one another at every operator suffer from whatever else runs there (benchmarks/engine/threads.py)."""
ROWS = 4
MOST_KEPT = 4096  # bytes of what is kept
BY_ITSELF = torch.get_num_threads()


class Threads(NamedTuple):
    """How many, and why."""

    number: int
    reason: str


Seconds = Callable[[Sequence[int]], Mapping[int, float]]
"""For each of these numbers of threads, how long a batch takes."""


def settle(model: SNNet, asked: int | None, cache: Path | None = None) -> Threads:
    """Have torch compute on as many as were asked for, or as are worth it for this model on a CPU.

    What was measured is kept in `cache` for the rest of the day, so that the next start need not wait for it.
    """
    most, measure = most_threads(), partial(measured_threads, model)
    if asked or most == 1 or cache is None:
        chosen = choose_threads(asked, most, measure)
    else:
        chosen = choose_once(cache / f"threads-{model.family.name}.json", most, measure)
    torch.set_num_threads(chosen.number)
    return chosen


def choose_once(path: Path, most: int, measure: Seconds) -> Threads:
    """As `choose_threads`, or what that chose earlier today, which this file tells."""
    told = {"most": most, "torch": torch.__version__, "day": date.today().isoformat()}
    with suppress(OSError, ValueError, TypeError, LookupError, OverflowError, RecursionError):
        if path.is_file() and path.stat().st_size <= MOST_KEPT:
            known = json.loads(path.read_text("utf-8"))
            if known["measured"] == told and 1 <= int(known["number"]) <= most:
                return Threads(int(known["number"]), str(known["reason"]))
    took: dict[int, float] = {}

    def noted(counts: Sequence[int]) -> Mapping[int, float]:
        took.update(measure(counts))
        return took

    chosen = choose_threads(None, most, noted)
    with suppress(OSError):  # then the next start measures too
        if took[most] <= took[1]:  # else others were at work, who may be gone then
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(chosen._asdict() | {"measured": told}))
    return chosen


def most_threads(wanted: int = BY_ITSELF) -> int:
    """So many threads, as torch takes by itself if nothing else is said, but no more than are allowed processors.

    torch looks at the processors of the affinity alone: in a container with a quota of two it would start one for
    every processor of the host, and be stopped most of the time.
    """
    return max(1, min(wanted, math.floor(cpus())))


def choose_threads(asked: int | None, most: int, measure: Seconds) -> Threads:
    """As many as asked for; else twice as many for as long as that is worth it."""
    if asked:
        return Threads(asked, "as set")
    counts = [1 << power for power in range((most - 1).bit_length())] + [most]
    if len(counts) == 1:
        return Threads(1, "there is one core")
    seconds = measure(counts)
    for fewer, more in pairwise(counts):
        gain = seconds[fewer] / seconds[more]
        if gain < WORTH ** math.log2(more / fewer):
            return Threads(fewer, f"{more} make a batch of {ROWS} {gain:.2f} times as fast: the other cores decode")
    return Threads(most, f"all there are, {seconds[1] / seconds[most]:.2f} times as fast as one")


def measured_threads(model: SNNet, counts: Sequence[int], clock: Clock = time.perf_counter) -> Mapping[int, float]:
    """Seconds of a batch in the blocks of all anchors one after another, for each number of threads."""
    before = torch.get_num_threads()
    total = dict.fromkeys(counts, 0.0)
    try:
        for step, features, blocks in samples(model, ROWS):
            run, ready = partial(step, features), partial(_ready, partial(step, features[:1]))
            for count, seconds in in_turns(dict.fromkeys(counts, run), clock, ready).items():
                total[count] += blocks * min(seconds)  # others may be at work now, and gone later
    finally:
        torch.set_num_threads(before)
    return total


def _ready(run: Callable[[], object], count: int) -> None:
    torch.set_num_threads(count)
    run()  # the first one starts the threads
