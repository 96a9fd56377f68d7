"""What the doctor found, in words: a plain record, its text, and what limits speed. Measures nothing."""

from collections.abc import Iterator

from pydantic import BaseModel, computed_field

from server.nvml import GpuLoad

BUSY = 1.5  # processes that want to run, per processor we may use, from which on others are felt
OTHERS = 0.1  # share of a GPU's time that others take, from which on they are felt
MANY = 12  # processors beside a GPU on which front ends were measured to be worth theirs (benchmarks/peers)


class Cores(BaseModel):
    """Processors this process may be scheduled on, how many of them a quota is worth, and torch's threads, and why."""

    allowed: int
    quota: float
    threads: int
    reason: str


class Speed(BaseModel):
    """How long a batch of one stitch took just now, and its share of the device's rate in matrix products."""

    stitch: int
    route: str
    batch: int
    ms: float
    images_per_second: float
    share_of_products: float


class Diagnosis(BaseModel):
    """What would serve: family, device, number format, table, speeds. Bytes, milliseconds and GFLOP/s."""

    family: str
    stitches: int
    frontier: int
    accuracy_known: bool
    weights: str
    weight_bytes: int
    torch: str
    device: str
    processor: str
    features: list[str]
    multiplies_16_bits: bool
    cores: Cores
    load_average: float
    dtype: str
    dtype_reason: str
    dtype_ratio: float | None
    decoder: str
    decoder_reason: str
    frontends: int
    keeps_freed_memory: bool
    spin_count: str | None
    table: str
    latencies: str | None
    latencies_dtype: str | None
    product_gflops: float
    speeds: list[Speed]
    gpu: dict[str, str]
    gpu_load: GpuLoad | None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def limits(self) -> list[str]:
        """What keeps it from being faster, or its promises from being exact, and what would help."""
        return [*self._table_limits(), *(self._gpu_limits() if self.gpu else self._processor_limits())]

    def _table_limits(self) -> Iterator[str]:
        if self.latencies is None:
            yield "no latency table for this device: the first start measures one; `stitchserve profile` keeps one"
        elif self.latencies_dtype != self.dtype:
            yield f"the latency table was measured in {self.latencies_dtype}, not {self.dtype}: profile again"
        if not self.accuracy_known:
            yield "the table has no top-1: dearer counts as better until `stitchserve evaluate` measures it"

    def _processor_limits(self) -> Iterator[str]:
        if not self.multiplies_16_bits:
            yield "no 16-bit products: on a processor with avx512_bf16 or amx_bf16 large networks run faster"
        if self.cores.quota < self.cores.allowed:
            yield f"a quota of {self.cores.quota:g} CPUs on {self.cores.allowed}: more threads would only be stopped"
        if self.cores.quota <= 2:
            yield f"{self.cores.quota:g} cores: decoding images shares them with the engine"
        if self.load_average > BUSY * self.cores.quota:
            yield f"others are at work (load average {self.load_average:.1f}): the speeds here are too low"
        if not self.keeps_freed_memory:
            yield "freed memory goes back to the system (not glibc, or its own settings): batches fault it in again"

    def _gpu_limits(self) -> Iterator[str]:
        if not self.frontends and self.cores.quota >= MANY:
            most = int(self.cores.quota * 2 / 3)
            yield f"one process speaks HTTP and decodes for the GPU: `serve --frontends {most}` answers more requests"
        load = self.gpu_load
        if load is None:
            yield "NVML does not answer: load that is not ours is not seen"
            return
        if load.others is not None and load.others > OTHERS:
            yield f"others take {load.others:.0%} of the GPU's time"
        if load.throttled:
            yield f"the GPU is throttled: {', '.join(load.throttled)}"

    def text(self) -> str:
        """The diagnosis for people."""
        return "\n".join(f"{name:<10} {value}" for name, value in self._lines())

    def _lines(self) -> Iterator[tuple[str, str]]:
        yield "family", f"{self.family}, {self.stitches} stitches, {self.frontier} on the frontier"
        yield "weights", f"{self.weights}, {self.weight_bytes / 1e6:.1f} MB in memory"
        yield "device", f"{self.device}, torch {self.torch}"
        if self.gpu:
            yield "gpu", ", ".join(f"{key} {value}" for key, value in self.gpu.items())
        yield "processor", f"{self.processor}; {' '.join(self.features) or 'features unknown'}"
        cores = self.cores
        among = f"{cores.quota:g} of {cores.allowed} by quota and affinity"
        yield "cores", f"{among}; threads {cores.threads}: {cores.reason}"
        measured = "" if self.dtype_ratio is None else f" (x{self.dtype_ratio:.2f})"
        yield "dtype", f"{self.dtype}{measured}: {self.dtype_reason}"
        yield "decoder", f"{self.decoder}: {self.decoder_reason}"
        kept = "freed memory is kept" if self.keeps_freed_memory else "freed memory goes back to the system"
        yield "process", f"{kept}; idle OpenMP threads spin {self.spin_count or 'as long as they like'}"
        yield "table", self.table
        yield "latencies", self.latencies or "none for this device"
        yield "products", f"{self.product_gflops:.0f} GFLOP/s in {self.dtype}"
        for speed in self.speeds:
            yield (
                "speed",
                f"{speed.route}, {speed.batch} at once: {speed.ms:.2f} ms, {speed.images_per_second:.0f} images/s, "
                f"{speed.share_of_products:.0%} of the rate in products",
            )
        for limit in self.limits or ["nothing found"]:
            yield "limit", limit
