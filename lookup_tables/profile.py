"""Measures how long a device takes for each stitch and batch size."""

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from types import MappingProxyType

from tqdm import tqdm

from lookup_tables.latency import Latency, Measurement

Run = Callable[[int, int], None]
"""Runs one batch: run(stitch, batch) returns when the device has finished."""

Clock = Callable[[], float]

LEAST_ROUNDS = 3
NO_DETAILS: Mapping[str, str] = MappingProxyType({})

_MARKETING = re.compile(r"\((r|tm|c)\)|®|™|@.*|\bwith\b.*|\b\d+-core\b|\b(cpu|processor)\b", re.IGNORECASE)


def profile(
    run: Run,
    stitches: Sequence[int],
    batches: Sequence[int],
    device: str,
    *,
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
    """
    pairs = list(product(stitches, batches))
    if not pairs or rounds < 1 or min(batches) < 1:
        raise ValueError("a profile needs a stitch, a batch size of at least 1 and a round")
    seconds: dict[tuple[int, int], list[float]] = {pair: [] for pair in pairs}
    start = clock()
    with tqdm(
        total=(rounds + 1) * len(pairs), desc=f"profile {device}", unit="run", disable=None if progress else True
    ) as bar:
        _round(run, pairs, clock, bar.update)
        for done in range(rounds):
            # The warm-up counts as a round here: it may be slower, so the guess errs towards stopping early.
            elapsed = clock() - start
            if time_limit is not None and done >= LEAST_ROUNDS and elapsed * (done + 2) / (done + 1) > time_limit:
                break
            for pair, took in zip(pairs, _round(run, pairs, clock, bar.update), strict=True):
                seconds[pair].append(took)
    measurements = tuple(_measurement(*pair, measured) for pair, measured in seconds.items())
    return Latency(device, measurements, dict(details))


def nearest_rank(ordered: Sequence[float], quantile: float) -> float:
    """The smallest of `ordered` (ascending, not empty) that at least the share `quantile` of them do not exceed."""
    return ordered[max(math.ceil(quantile * len(ordered)), 1) - 1]


def device_slug(kind: str, name: str, threads: int | None = None) -> str:
    """A device's name for files: ("cpu", "AMD EPYC 9R14 96-Core Processor", 2) gives cpu-amd-epyc-9r14-2threads."""
    words = re.findall(r"[a-z0-9]+", f"{kind} {_MARKETING.sub(' ', name)}".lower())
    return "-".join(words[:10] if threads is None else [*words[:10], f"{threads}threads"])


def _round(run: Run, pairs: Sequence[tuple[int, int]], clock: Clock, advance: Callable[[], object]) -> list[float]:
    return [_timed(run, pair, clock, advance) for pair in pairs]


def _timed(run: Run, pair: tuple[int, int], clock: Clock, advance: Callable[[], object]) -> float:
    start = clock()
    run(*pair)
    took = clock() - start
    advance()
    return took


def _measurement(stitch: int, batch: int, seconds: Sequence[float]) -> Measurement:
    ordered = sorted(seconds)
    return Measurement(stitch, batch, nearest_rank(ordered, 0.5), nearest_rank(ordered, 0.99), len(ordered))


def affordable(
    flops: Mapping[int, int], batches: Sequence[int], seconds_per_flop: float, time_limit: float
) -> tuple[list[int], list[int]]:
    """The stitches and batch sizes that a warm-up and the least rounds can measure within `time_limit` seconds.

    Stitches are thinned evenly over their FLOPs, the cheapest and the dearest kept, before the largest batches go;
    the least is these two at a batch of one, whatever they take.
    """
    by_cost = sorted(flops, key=flops.__getitem__)
    for largest in range(len(batches), 0, -1):
        for count in (len(by_cost), 16, 8, 4):
            chosen = _spread(by_cost, count)
            work = sum(flops[stitch] for stitch in chosen) * sum(batches[:largest])
            if (1 + LEAST_ROUNDS) * work * seconds_per_flop <= time_limit:
                return chosen, list(batches[:largest])
    return _spread(by_cost, 2), list(batches[:1])


def _spread(ordered: Sequence[int], count: int) -> list[int]:
    """`count` of them, evenly, with both ends; all where there are no more."""
    if count >= len(ordered):
        return list(ordered)
    return [ordered[round(i * (len(ordered) - 1) / (count - 1))] for i in range(count)]
