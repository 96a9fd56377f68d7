"""The latency file of this device: shipped, measured earlier, or measured now for a bounded time."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path

from lookup_tables.costs import Way
from lookup_tables.modules import LAUNCH
from lookup_tables.profile import Modules, affordable, checked, launched, profile, spread
from lookup_tables.table import Latency, LookupTable
from lookup_tables.writer import latency_path, write_latency
from server.engine import Engine

log = logging.getLogger(__name__)

MOST_CHECKS = 8
ENOUGH = 0.1  # seconds
BATCHES_A_LANE = 8  # or the first and the last would count


def batches_up_to(largest: int) -> tuple[int, ...]:
    """The batch sizes that are profiled: powers of two, and the largest."""
    return tuple(sorted({2**power for power in range(largest.bit_length()) if 2**power < largest} | {largest}))


def table_for(engine: Engine, folder: Path, cache: Path, max_batch: int, time_limit: float) -> LookupTable:
    """The table with this device's latencies: from the table's folder, else from `cache`, else profiled and kept there.

    Profiling takes about `time_limit` seconds at most: as many batch sizes, and stitches beside the modules, as that
    affords; the table predicts the others. What is kept is measured anew once more is affordable: the machine was busy
    then, or the limit lower. Raises TableError for a bad table or latency file.
    """
    table = LookupTable.load(folder)
    given = latency_path(folder, engine.device_slug)
    if given.is_file():
        log.info("latencies of this device: %s", given)
        return LookupTable.load(folder, given)
    stitches, batches = within(engine, table, batches_up_to(max_batch), time_limit)
    kept = kept_path(engine, table, cache)
    if kept.is_file():
        known = LookupTable.load(folder, kept)
        if _as_rich(known, len(stitches), len(batches)):
            log.info("latencies of this device: %s", kept)
            return known
    log.info(
        "profiling on %s at batches of %s, for about %.0f s at most",
        engine.device_slug, ", ".join(map(str, batches)), time_limit,
    )  # fmt: skip
    latency = measured(engine, table, stitches, batches, time_limit=time_limit)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        log.info("kept in %s", write_latency(kept.parent, latency))
    except OSError as error:
        log.warning("cannot keep the latencies for the next start (%s); give a folder to write to as --cache", error)
        return replace(table, latency=latency)
    return LookupTable.load(folder, kept)


def measured(
    engine: Engine,
    table: LookupTable,
    stitches: Sequence[int],
    batches: Sequence[int],
    *,
    rounds: int = 30,
    time_limit: float | None = None,
    keep: bool = False,
) -> Latency:
    """This device's latencies: of every module class where the table knows them, and of these stitches.

    With modules, the stitches check what the modules predict, and only those that differ stay, or all with `keep`;
    and two of the frontier's cheapest tell what launching the calls of a mixture takes.
    """
    modules = Modules(engine.run_timed, covering(table)) if table.modules else None
    latency = profile(
        engine.run_once,
        stitches,
        batches,
        engine.device_slug,
        modules=modules,
        details=engine.conditions,
        rounds=rounds,
        time_limit=time_limit,
    )
    if not modules:
        return latency
    latency = checked(table, latency, keep=keep)
    cheapest = [entry.stitch for entry in table.frontier()[:2]]
    if len(cheapest) > 1 and max(batches) > 1:
        for record in engine.recordings(cheapest):  # as a server's are: one after the other would take longer else
            record()
        latency = launched(table, latency, partial(_mixed_seconds, engine), cheapest)
    log.info("predicted from modules: %s", {k: v for k, v in latency.details.items() if k.startswith("prediction")})
    return latency


def _mixed_seconds(engine: Engine, stitches: Sequence[int], way: Way) -> float:
    """Seconds of one of several batches of these stitches, as many at once as the engine takes."""
    images, began = engine.fixed_images(len(stitches)), time.perf_counter()
    times = on_all_lanes(engine, lambda: engine.run(images, stitches, way))
    return (time.perf_counter() - began) / times


def on_all_lanes(engine: Engine, batch: Callable[[], object]) -> int:
    """Run a batch several times, as many at once as the engine takes, or where that is one, once; how many times."""
    if engine.lanes == 1:  # and on this thread: a new one is slow at first on a processor
        batch()
        return 1
    times = BATCHES_A_LANE * engine.lanes
    with ThreadPoolExecutor(engine.lanes) as lanes:
        list(lanes.map(lambda _: batch(), range(times)))
    return times


def covering(table: LookupTable) -> list[int]:
    """Stitches that together pass every module class; none where the table does not know what they are made of."""
    if table.modules is None:
        return []
    routes = {entry.route: entry for entry in reversed(table.entries)}
    chosen = table.modules.covering({route: entry.flops for route, entry in routes.items()})
    return [routes[route].stitch for route in chosen]


def checks(table: LookupTable) -> list[int]:
    """Stitches to measure whole: the frontier, or some of it where the latencies of modules predict the others."""
    frontier = [entry.stitch for entry in table.frontier()]
    if table.modules is None:
        return frontier
    through = set(covering(table))
    return spread([stitch for stitch in frontier if stitch not in through], MOST_CHECKS)


def within(
    engine: Engine, table: LookupTable, batches: Sequence[int], time_limit: float
) -> tuple[list[int], list[int]]:
    """The stitches and batch sizes to profile in that time, beside those in which modules are measured."""
    flops = {entry.stitch: entry.flops for entry in table.entries}
    dearest = max((entry.stitch for entry in table.frontier()), key=flops.__getitem__)
    per_flop = _seconds(lambda: engine.run_once(dearest, 1)) / flops[dearest]
    through = covering(table)
    chosen = {stitch: flops[stitch] for stitch in [*checks(table), *through]}
    return affordable(chosen, batches, per_flop, time_limit, through)


def _as_rich(table: LookupTable, stitches: int, batches: int) -> bool:
    """Whether the table's latencies are as many as these would give."""
    if table.latency is None:
        return False
    if table.modules:
        return len(table.latency.modules) >= len(table.modules.kinds) * batches
    return len(table.latency.measurements) >= stitches * batches


def kept_path(engine: Engine, table: LookupTable, cache: Path) -> Path:
    """Where in `cache` the latencies of this engine are kept, once they were measured."""
    return latency_path(cache / f"{table.family.name}-{_fingerprint(engine, table)}", engine.device_slug)


def _fingerprint(engine: Engine, table: LookupTable) -> str:
    """Changes when latencies measured earlier no longer hold, or lack a kind: other networks, torch, dtype, method."""
    networks = [(entry.route, entry.flops) for entry in table.entries]
    conditions = {key: value for key, value in engine.conditions.items() if key != "date"}
    return sha256(repr((networks, table.modules, LAUNCH, conditions)).encode()).hexdigest()[:12]


def _seconds(call: Callable[[], None]) -> float:
    """Seconds of a warm call, the median of three or, where it is long, those of one: somebody waits for the server."""
    call()
    first = _once(call)
    return first if first > ENOUGH else sorted((first, _once(call), _once(call)))[1]


def _once(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def age(latency: Latency | None) -> float | None:
    """Seconds since the day on which these were measured, by the wall clock; None where they do not tell it."""
    try:
        day = datetime.fromisoformat(latency.details["date"]) if latency else None
    except (KeyError, ValueError):  # a file that somebody wrote
        return None
    return (datetime.now(UTC) - day.replace(tzinfo=UTC)).total_seconds() if day else None
