"""`stitchserve doctor`: what would serve here, how fast it is, and what keeps it from being faster."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field

from lookup_tables.profile import profile
from lookup_tables.table import LookupTable, folder
from lookup_tables.writer import latency_path
from server.cgroups import allowed_processors, cpus
from server.decoding import choose
from server.device import gpu_facts, pick_device, processor, product_rate
from server.diagnosis import Cores, Diagnosis, Speed
from server.dtype import Setting
from server.engine import Engine
from server.latencies import kept_path
from server.matching import check
from server.nvml import Gpu, GpuLoad, GpuWatch
from server.process import SPIN, keep_freed_memory
from server.settings import Settings, default_cache
from stitching import SNNet
from stitching.checkpoint import load, shipped
from stitching.families import family as named_family

SHOWN = frozenset(
    "avx2 avx_vnni avx512f avx512_vnni avx512_bf16 avx512_fp16 amx_bf16 amx_fp16 amx_int8 asimdhp bf16".split()  # noqa: SIM905
)
"""The processor features that matter to the speed of networks: x86, then Arm."""
BATCHES = (1, 8)
LONGEST = 5.0  # seconds of measuring speed
NVML_WAIT = 2.0  # seconds for the driver to answer


class Doctor(BaseModel):
    """Print what would serve here, how fast it is, and what keeps it from being faster."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str = Field("digits", description="family to look at")
    checkpoint: Path | None = Field(None, description="its weights; none: those that ship, or else fresh ones")
    table: Path | None = Field(None, description="folder of its lookup table; none: the one that ships")
    device: str = Field("auto", description="cpu, cuda, cuda:1; auto takes CUDA where there is one")
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads; none: as many as are worth their cores")
    dtype: Setting = Field("auto", description="format of the weights; auto: the fastest here; float32 is exact")
    cache: Path = Field(default_factory=default_cache, description="folder that keeps measured latencies")
    as_json: bool = Field(False, alias="json", description="print JSON")

    def cli_cmd(self) -> None:
        """Look, and print."""
        found = self.diagnosis()
        print(found.model_dump_json(indent=2) if self.as_json else found.text())

    def diagnosis(self) -> Diagnosis:
        """What there is to say. Raises ValueError for a family, table, file or device that does not do."""
        source = self.table or folder(self.family)
        table = LookupTable.load(source)
        path = self.checkpoint or shipped(self.family)
        fresh = self.checkpoint is None and not path.is_file()
        model = SNNet(named_family(self.family)) if fresh else load(self.family, self.checkpoint)
        engine = Engine(model, pick_device(self.device), self.threads, dtype=self.dtype)
        check(engine.model, table)
        candidates = latency_path(source, engine.device_slug), kept_path(engine, table, self.cache)
        measured = next((file for file in candidates if file.is_file()), None)
        latency = LookupTable.load(source, measured).latency if measured else None
        rate = product_rate(engine.device, engine.precision.variant.dtype)
        serving = Settings()  # of the environment
        decoding = choose(
            serving.decode,
            engine.device,
            serving.decode_threads,
            table.family.preprocessing,
            frontends=serving.frontends,
        )
        return Diagnosis(
            family=table.family.name,
            stitches=len(table.entries),
            frontier=len(table.frontier()),
            accuracy_known=any(entry.top1 is not None for entry in table.entries),
            weights="fresh ones, for speed alone" if fresh else str(path),
            weight_bytes=sum(parameter.nbytes for parameter in model.parameters()),
            torch=torch.__version__,
            device=engine.device_slug,
            processor=processor().name,
            features=sorted(processor().features & SHOWN),
            multiplies_16_bits=bool(processor().formats),
            cores=_cores(engine),
            load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
            dtype=engine.precision.variant.name,
            dtype_reason=engine.precision.reason,
            dtype_ratio=engine.precision.ratio,
            decoder=decoding.name,
            decoder_reason=decoding.reason,
            frontends=serving.frontends,
            keeps_freed_memory=keep_freed_memory(),
            spin_count=os.environ.get(SPIN),
            table=str(source),
            latencies=str(measured) if measured else None,
            latencies_dtype=latency.details.get("dtype") if latency else None,
            product_gflops=rate / 1e9,
            speeds=_speeds(engine, table, rate),
            gpu=dict(gpu_facts(engine.device)),
            gpu_load=_gpu_load(partial(Gpu, engine.gpu_uuid)) if engine.gpu_uuid else None,
        )


def _cores(engine: Engine) -> Cores:
    reason = engine.threads.reason if engine.threads else "the GPU computes"
    return Cores(allowed=len(allowed_processors()), quota=cpus(), threads=torch.get_num_threads(), reason=reason)


def _speeds(engine: Engine, table: LookupTable, rate: float) -> list[Speed]:
    """Of the cheapest and the dearest stitch; `rate` in floating-point operations a second, two to a multiply-add."""
    entries = {entry.stitch: entry for entry in (table.frontier()[0], table.frontier()[-1])}
    latency = profile(
        engine.run_once, list(entries), BATCHES, engine.device_slug, rounds=5, time_limit=LONGEST, progress=False
    )
    return [
        Speed(
            stitch=m.stitch,
            route=entries[m.stitch].route,
            batch=m.batch,
            ms=m.p50 * 1e3,
            images_per_second=m.batch / m.p50,
            share_of_products=2 * entries[m.stitch].flops * m.batch / m.p50 / rate,
        )
        for m in latency.measurements
    ]


def _gpu_load(find: Callable[[], Gpu]) -> GpuLoad | None:
    """The load of a GPU, or None when NVML does not tell in time; a sick driver makes it hang."""
    watch = GpuWatch(find)
    watch.start()
    ends = time.monotonic() + NVML_WAIT
    while (load := watch.latest()) is None and time.monotonic() < ends:
        time.sleep(0.05)
    watch.stop()
    return load
