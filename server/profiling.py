"""`stitchserve profile`: measures this device and writes its latency file."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lookup_tables.profile import affordable, profile
from lookup_tables.table import Entry, LookupTable, folder
from lookup_tables.writer import latency_path, write_latency
from server.engine import Engine
from server.latencies import batches_up_to

log = logging.getLogger(__name__)


class Profile(BaseModel):
    """Measure latency per stitch and batch size on this device, into latency.<device>.csv."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str = Field("digits", description="family to measure")
    checkpoint: Path | None = Field(None, description="its weights; none: those that ship with the family")
    table: Path | None = Field(None, description="folder of its lookup table; none: the one that ships")
    device: str = Field("auto", description="cpu, cuda, cuda:1; auto takes CUDA where there is one")
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads; none: what torch takes by itself")
    stitches: Literal["frontier", "all"] = "frontier"
    max_batch: int = Field(32, ge=1, le=1024, description="largest batch; powers of two up to it are measured")
    rounds: int = Field(30, ge=3, description="measurements of each")
    time_limit_s: float | None = Field(
        600.0, ge=0, description="longest it may take; where all does not fit, fewer are measured; 0: no limit"
    )
    out: Path | None = Field(None, description="folder for the file; none: the table's")

    def cli_cmd(self) -> None:
        """Measure, write, and say where."""
        source = self.table or folder(self.family)
        table = LookupTable.load(source)
        engine = Engine.load(self.family, self.checkpoint, self.device, self.threads)
        engine.check(table)
        entries = table.frontier() if self.stitches == "frontier" else table.entries
        stitches, batches = self._plan(engine, entries)
        latency = profile(
            engine.run_once,
            stitches,
            batches,
            engine.device_slug,
            details=engine.conditions,
            rounds=self.rounds,
            time_limit=self.time_limit_s or None,
        )
        out = self.out or source
        out.mkdir(parents=True, exist_ok=True)
        write_latency(out, latency)
        print(latency_path(out, engine.device_slug))

    def _plan(self, engine: Engine, entries: Sequence[Entry]) -> tuple[Sequence[int], Sequence[int]]:
        """The stitches and batch sizes that are measured: all, or those that the time limit affords."""
        flops = {entry.stitch: entry.flops for entry in entries}
        stitches: Sequence[int] = list(flops)
        batches: Sequence[int] = batches_up_to(self.max_batch)
        if self.time_limit_s:
            dearest = max(flops, key=flops.__getitem__)
            once = profile(engine.run_once, [dearest], [1], engine.device_slug, rounds=3, progress=False)
            per_flop = once.measurements[0].p50 / flops[dearest]
            stitches, batches = affordable(flops, batches, per_flop, self.time_limit_s)
        log.info(
            "profiling %d of %d stitches on %s at batches of %s, %s (--time-limit-s)",
            len(stitches), len(entries), engine.device_slug, ", ".join(map(str, batches)),
            f"for about {self.time_limit_s:.0f} s at most" if self.time_limit_s else "without a time limit",
        )  # fmt: skip
        return stitches, batches
