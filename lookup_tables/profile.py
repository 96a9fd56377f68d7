"""Measures how long a device takes: in each module class, or for each stitch, at each batch size."""

import math
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from statistics import fmean, median
from types import MappingProxyType

from tqdm import tqdm

from lookup_tables.costs import Way
from lookup_tables.latency import Latency, Measurement, ModuleMeasurement
from lookup_tables.modules import INPUT, LAUNCH
from lookup_tables.table import LookupTable

Run = Callable[[int, int], None]
"""Runs one batch: run(stitch, batch) returns when the device has finished."""

RunTimed = Callable[[int, int], Sequence[tuple[str, float]]]
"""The same; gives the module classes that the batch passed, in order, and the seconds in each."""

RunMixed = Callable[[Sequence[int], Way], float]
"""Runs batches of such stitches, a row each, all of them this way; gives the seconds for each."""

Sample = tuple[int | str, int, float]
"""A stitch or a module class, the batch size, seconds."""

Clock = Callable[[], float]

LEAST_ROUNDS = 3
LONG_ENOUGH = 2.0  # seconds
TOLERANCE = 0.1
"""How far a prediction may be off, relative to what was measured."""
NO_DETAILS: Mapping[str, str] = MappingProxyType({})

_MARKETING = re.compile(r"\((r|tm|c)\)|®|™|@.*|\bwith\b.*|\b\d+-core\b|\b(cpu|processor)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Modules:
    """How to measure module classes: with `run`, inside whole batches of the stitches `through`."""

    run: RunTimed
    through: Sequence[int]


def profile(
    run: Run,
    stitches: Sequence[int],
    batches: Sequence[int],
    device: str,
    *,
    modules: Modules | None = None,
    details: Mapping[str, str] = NO_DETAILS,
    rounds: int = 30,
    time_limit: float | None = None,
    clock: Clock = time.perf_counter,
    progress: bool = True,
) -> Latency:
    """Runs every stitch at every batch size once a round, so that drift of the machine falls on all alike.

    A first round is thrown away: it warms up. Then come `rounds` rounds, fewer if the next one would end later than
    `time_limit` seconds after the start, but never less than three (or `rounds`). p50 and p99 are nearest-rank
    quantiles: the smallest measurement that at least that share of them do not exceed. With fewer than 100 runs the
    p99 is therefore the slowest run: with few it says little about the tail. `progress` is a bar, shown on terminals
    alone. ValueError if there is nothing to measure.

    With `modules` their classes are measured too; see `checked` for what to do with the result. Not by running a module
    by itself, over and over, for its weights would stay in the cache. A batch gives one value for each class that it
    passes, the mean where it passes several modules of the class, so that the medians of classes add up to a stitch's.
    """
    calls: list[Callable[[], Sequence[Sample]]]
    calls = [partial(_whole, run, *pair, clock) for pair in product(stitches, batches)]
    if modules:
        calls += [partial(_by_class, modules.run, *pair) for pair in product(modules.through, batches)]
    if not calls or rounds < 1 or min(batches) < 1:
        raise ValueError("a profile needs a stitch, a batch size of at least 1 and a round")
    seconds: dict[tuple[int | str, int], list[float]] = {}
    start = clock()
    with tqdm(
        total=(rounds + 1) * len(calls), desc=f"profile {device}", unit="run", disable=None if progress else True
    ) as bar:
        for done in range(-1, rounds):
            # The warm-up counts as a round here: it may be slower, so the guess errs towards stopping early.
            elapsed = clock() - start
            if time_limit is not None and done >= LEAST_ROUNDS and elapsed * (done + 2) / (done + 1) > time_limit:
                break
            for call in calls:
                samples = call()
                bar.update()
                for of, batch, took in samples if done >= 0 else ():
                    seconds.setdefault((of, batch), []).append(took)
    return Latency(
        device,
        tuple(Measurement(of, n, *_quantiles(taken)) for (of, n), taken in seconds.items() if isinstance(of, int)),
        dict(details),
        tuple(
            ModuleMeasurement(of, n, *_quantiles(taken)) for (of, n), taken in seconds.items() if isinstance(of, str)
        ),
    )


def checked(table: LookupTable, profiled: Latency, *, keep: bool = False) -> Latency:
    """Compares the measured stitches of a profile with what its modules predict, and says in `details` how well.

    Measured stitches stay only where the prediction is off by more than a tenth (median over the batch sizes):
    elsewhere measured and predicted seconds would contradict each other by their noise. With `keep` all stay.
    """
    if not profiled.measurements:
        return profiled
    predicting = replace(table, latency=replace(profiled, measurements=()))
    errors: dict[int, list[float]] = {}
    for m in profiled.measurements:
        errors.setdefault(m.stitch, []).append(abs(predicting.seconds(m.stitch, m.batch) / m.p50 - 1))
    everywhere = [error for of_stitch in errors.values() for error in of_stitch]
    off = [stitch for stitch, of_stitch in errors.items() if median(of_stitch) > TOLERANCE]
    said = {
        "prediction_checked": f"{len(errors)} stitches",
        "prediction_error_median": f"{median(everywhere):.1%}",
        "prediction_error_worst": f"{max(everywhere):.1%}",
        "prediction_off": " ".join(map(str, off)) or "none",
    }
    kept = tuple(m for m in profiled.measurements if keep or m.stitch in off)
    return replace(profiled, measurements=kept, details={**profiled.details, **said})


def launched(
    table: LookupTable,
    profiled: Latency,
    run: RunMixed,
    pair: Sequence[int],
    *,
    rounds: int = 9,
    clock: Clock = time.perf_counter,
) -> Latency:
    """Adds to a profile with modules what launching their calls takes, where that is more than computing in them.

    Two cheap stitches are run merged and grouped, in turns, after a round that is thrown away: `rounds` times, but once
    that took LONG_ENOUGH no more than the least. The ratio is what the table's seconds for them must have: so it says
    which way is faster, however many batches run at once meanwhile.
    """
    predicting = replace(table, latency=profiled)
    if predicting.modules is None:
        return profiled
    counts = dict.fromkeys(pair, 1)
    calls = len({place for stitch in pair for place in predicting.modules.steps(table.entry(stitch).route)})
    ratios: list[float] = []
    began = clock()
    while len(ratios) <= LEAST_ROUNDS or (len(ratios) <= rounds and clock() - began < LONG_ENOUGH):
        ratios.append(run(pair, "merged") / run(pair, "grouped"))
    del ratios[0]
    computing = replace(predicting, latency=replace(profiled, measurements=())).merged_seconds(counts)
    off = predicting.merged_seconds(counts) / computing  # where stitches stay measured the table multiplies all by it
    entering = profiled.of_module(INPUT).at(len(pair))
    seconds = [(ratio * predicting.grouped_seconds(counts) / off - entering) / calls for ratio in ratios]
    if median(seconds) * calls + entering <= computing:
        return profiled
    launch = ModuleMeasurement(LAUNCH, len(pair), *_quantiles(seconds))
    return replace(profiled, modules=(*profiled.modules, launch))


def nearest_rank(ordered: Sequence[float], quantile: float) -> float:
    """The smallest of `ordered` (ascending, not empty) that at least the share `quantile` of them do not exceed."""
    return ordered[max(math.ceil(quantile * len(ordered)), 1) - 1]


def device_slug(kind: str, name: str, threads: int | None = None) -> str:
    """A device's name for files: ("cpu", "AMD EPYC 9R14 96-Core Processor", 2) gives cpu-amd-epyc-9r14-2threads."""
    words = re.findall(r"[a-z0-9]+", f"{kind} {_MARKETING.sub(' ', name)}".lower())
    return "-".join(words[:10] if threads is None else [*words[:10], f"{threads}threads"])


def _whole(run: Run, stitch: int, batch: int, clock: Clock) -> list[Sample]:
    start = clock()
    run(stitch, batch)
    return [(stitch, batch, clock() - start)]


def _by_class(run: RunTimed, stitch: int, batch: int) -> list[Sample]:
    taken: dict[str, list[float]] = {}
    for kind, seconds in run(stitch, batch):
        taken.setdefault(kind, []).append(seconds)
    return [(kind, batch, fmean(seconds)) for kind, seconds in taken.items()]


def _quantiles(seconds: Sequence[float]) -> tuple[float, float, int]:
    """Median, 99th percentile and their number."""
    ordered = sorted(seconds)
    return nearest_rank(ordered, 0.5), nearest_rank(ordered, 0.99), len(ordered)


def affordable(
    flops: Mapping[int, int],
    batches: Sequence[int],
    seconds_per_flop: float,
    time_limit: float,
    through: Collection[int] = (),
) -> tuple[list[int], list[int]]:
    """The stitches and batch sizes that a warm-up and the least rounds can measure within `time_limit` seconds.

    `flops` are those of the stitches to choose from and of `through`, the stitches that are run in any case.
    Stitches are thinned evenly over their FLOPs, the cheapest and the dearest kept, before the largest batches go;
    the least is these two at a batch of one, whatever they take.
    """
    by_cost = sorted(flops.keys() - set(through), key=flops.__getitem__)
    anyhow = sum(flops[stitch] for stitch in through)
    for largest in range(len(batches), 0, -1):
        for count in (len(by_cost), 4, 2) if through else (len(by_cost), 16, 8, 4):
            chosen = spread(by_cost, count)
            work = (anyhow + sum(flops[stitch] for stitch in chosen)) * sum(batches[:largest])
            if (1 + LEAST_ROUNDS) * work * seconds_per_flop <= time_limit:
                return chosen, list(batches[:largest])
    return spread(by_cost, 2), list(batches[:1])


def spread(ordered: Sequence[int], count: int) -> list[int]:
    """`count` of them, evenly, with both ends; all where there are no more."""
    if count >= len(ordered):
        return list(ordered)
    return [ordered[round(i * (len(ordered) - 1) / (count - 1))] for i in range(count)]
