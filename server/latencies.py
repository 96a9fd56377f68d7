"""The latency file of this device: shipped, measured earlier, or measured now for a bounded time."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from lookup_tables.profile import affordable, profile
from lookup_tables.table import LookupTable
from lookup_tables.writer import latency_path, write_latency
from server.engine import Engine

log = logging.getLogger(__name__)


def batches_up_to(largest: int) -> tuple[int, ...]:
    """The batch sizes that are profiled: powers of two, and the largest."""
    return tuple(sorted({2**power for power in range(largest.bit_length()) if 2**power < largest} | {largest}))


def table_for(engine: Engine, folder: Path, cache: Path, max_batch: int, time_limit: float) -> LookupTable:
    """The table with this device's latencies: from the table's folder, else from `cache`, else profiled and kept there.

    Profiling takes about `time_limit` seconds at most: as many frontier stitches and batch sizes as that affords; the
    table interpolates between them. What is kept is measured anew once more is affordable: the machine was busy then,
    or the limit lower. Raises TableError for a bad table or latency file.
    """
    table = LookupTable.load(folder)
    given = latency_path(folder, engine.device_slug)
    if given.is_file():
        log.info("latencies of this device: %s", given)
        return LookupTable.load(folder, given)
    flops = {entry.stitch: entry.flops for entry in table.frontier()}
    dearest = max(flops, key=flops.__getitem__)
    per_flop = _seconds(lambda: engine.run_once(dearest, 1)) / flops[dearest]
    stitches, batches = affordable(flops, batches_up_to(max_batch), per_flop, time_limit)
    kept = kept_path(engine, table, cache)
    if kept.is_file():
        known = LookupTable.load(folder, kept)
        if known.latency and len(known.latency.measurements) >= len(stitches) * len(batches):
            log.info("latencies of this device: %s", kept)
            return known
    log.info(
        "profiling %d of %d frontier stitches on %s at batches of %s, for about %.0f s at most",
        len(stitches), len(flops), engine.device_slug, ", ".join(map(str, batches)), time_limit,
    )  # fmt: skip
    latency = profile(
        engine.run_once, stitches, batches, engine.device_slug, details=engine.conditions, time_limit=time_limit
    )
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        log.info("kept in %s", write_latency(kept.parent, latency))
    except OSError as error:
        log.warning("cannot keep the latencies for the next start (%s); give a folder to write to as --cache", error)
        return replace(table, latency=latency)
    return LookupTable.load(folder, kept)


def kept_path(engine: Engine, table: LookupTable, cache: Path) -> Path:
    """Where in `cache` the latencies of this engine are kept, once they were measured."""
    return latency_path(cache / f"{table.family.name}-{_fingerprint(engine, table)}", engine.device_slug)


def _fingerprint(engine: Engine, table: LookupTable) -> str:
    """Changes when latencies measured earlier no longer hold: other networks, another torch, another dtype."""
    networks = [(entry.route, entry.flops) for entry in table.entries]
    conditions = {key: value for key, value in engine.conditions.items() if key != "date"}
    return sha256(repr((networks, conditions)).encode()).hexdigest()[:12]


def _seconds(call: Callable[[], None]) -> float:
    """Median seconds of a warm call."""
    call()
    return sorted(_once(call) for _ in range(3))[1]


def _once(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
