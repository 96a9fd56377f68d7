"""`stitchserve profile`: measures this device and writes its latency file."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lookup_tables.table import LookupTable, folder
from lookup_tables.writer import latency_path, write_latency
from server.dtype import Setting
from server.engine import Engine
from server.latencies import batches_up_to, checks, measured, within
from server.matching import check

log = logging.getLogger(__name__)


class Profile(BaseModel):
    """Measure latency per stitch and batch size on this device, into latency.<device>.csv."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str = Field("digits", description="family to measure")
    checkpoint: Path | None = Field(None, description="its weights; none: those that ship with the family")
    table: Path | None = Field(None, description="folder of its lookup table; none: the one that ships")
    device: str = Field("auto", description="cpu, cuda, cuda:1; auto takes CUDA where there is one")
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads; none: as many as are worth their cores")
    dtype: Setting = Field("auto", description="format of the weights; auto: the fastest here; float32 is exact")
    stitches: Literal["frontier", "all"] = Field(
        "frontier", description="stitches to check what the modules predict: some of the frontier; all: every one"
    )
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
        engine = Engine.load(
            self.family, self.checkpoint, self.device, self.threads, dtype=self.dtype, max_batch=self.max_batch
        )
        check(engine.model, table)
        stitches: Sequence[int] = [entry.stitch for entry in table.entries] if self.stitches == "all" else checks(table)
        batches: Sequence[int] = batches_up_to(self.max_batch)
        if self.time_limit_s:
            fewer, batches = within(engine, table, batches, self.time_limit_s)
            stitches = stitches if self.stitches == "all" else fewer
        limit = f"for about {self.time_limit_s:.0f} s at most" if self.time_limit_s else "without a time limit"
        log.info("profiling at batches of %s, %s (--time-limit-s)", ", ".join(map(str, batches)), limit)
        latency = measured(
            engine,
            table,
            stitches,
            batches,
            rounds=self.rounds,
            time_limit=self.time_limit_s or None,
            keep=self.stitches == "all",
        )
        out = self.out or source
        out.mkdir(parents=True, exist_ok=True)
        write_latency(out, latency)
        for key, value in latency.details.items():
            if key.startswith("prediction"):
                print(f"{key}: {value}")
        print(latency_path(out, engine.device_slug))
