"""Every series that /metrics shows, in one registry of its own."""

from collections import Counter as Counts
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Info, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from lookup_tables.table import Entry
from server.distributions import Distributions
from server.errors import DeadlinePassed, Overloaded
from server.graphs import EAGER, Buckets, Graphs
from server.monitor import Load
from server.nvml import THROTTLES, GpuLoad

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
CONNECTION = "connection"
"""The route of what came to none: no request, one too long or too slow, or one connection too many."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MIXED = ("merged", "grouped")
OUTCOMES = ("decoded", "left", "failed")
REFUSED = (
    ("full", "arrival"),
    ("memory", "arrival"),
    ("bodies", "receive"),
    ("share", "queue"),
    ("doomed", "arrival"),
    ("doomed", "queue"),
    ("late", "receive"),
    ("late", "decode"),
    ("late", "queue"),
)
"""Why images are refused for load, and when."""


@dataclass(frozen=True)
class Totals:
    """Images since the start: answered, how many of those in time, refused for load; and the answered ones' top-1.

    `top1` is the sum, as fractions, over the `known` images whose stitch has one.
    """

    answered: float
    met: float
    refused: float
    top1: float
    known: float


Reading = Callable[[], float | None]
Readings = Callable[[], Mapping[str, float]]


class Metrics:
    """The series. Labels hold route templates, statuses and a few words, so their number does not grow with traffic."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.build = Info("stitchserve_build", "What runs here", registry=self.registry)
        self.requests = Counter(
            "stitchserve_requests", "Requests by route and status", ["route", "status"], registry=self.registry
        )
        seconds = Distributions("stitchserve_request_seconds", "From arrival to answer", SECONDS, "route")
        stages = Distributions(
            "stitchserve_stage_seconds", "Decode, queue and compute time of answered images", SECONDS, "stage"
        )
        flops = Distributions("stitchserve_served_flops", "FLOPs (multiply-adds) of the stitches that answered")
        top1 = Distributions("stitchserve_served_top1_ratio", "Top-1 of the stitches that answered, 0 to 1")
        rows = Distributions("stitchserve_batch_rows", "Images in a batch", (1, 2, 4, 8, 16, 32, 64))
        for each in (seconds, stages, flops, top1, rows):
            self.registry.register(each)
        self._seconds, self._flops, self._top1, self.batch_rows = seconds, flops.of(), top1.of(), rows.of()
        self._stages = {stage: stages.of(stage) for stage in ("decode", "queue", "compute")}
        self.deadlines = Counter(
            "stitchserve_deadlines", "Answered images, in time or not", ["met"], registry=self.registry
        )
        self.dispatches = Counter(
            "stitchserve_dispatch",
            "Batches by why they held no more: full, drained (nobody else waited), or what the policy says",
            ["reason"],
            registry=self.registry,
        )
        self.refused_images = Counter(
            "stitchserve_refused_images",
            "Images refused for load: full, memory, bodies (no room for them), share (its tenant has more than that), "
            "doomed (even the cheapest stitch would be too late), late (the stage is where most of the time went)",
            ["reason", "stage"],
            registry=self.registry,
        )
        for reason, stage in REFUSED:
            self.refused_images.labels(reason, stage)
        # Looked for once, and not for every answer.
        self._requests_of = lru_cache(lambda route, status: self.requests.labels(route, str(status)))
        self._deadlines_of = lru_cache(lambda met: self.deadlines.labels(str(met).lower()))

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Counts a request that has ended."""
        self._requests_of(route, status).inc()
        self._seconds.of(route).observe(seconds)

    def count_answer(self, entry: Entry, seconds: Mapping[str, float], *, in_time: bool) -> None:
        """Counts an image that was answered by a stitch, and the seconds of its stages."""
        self._flops.observe(entry.flops)
        if entry.top1 is not None:
            self._top1.observe(entry.top1)
        self._deadlines_of(in_time).inc()
        for stage, series in self._stages.items():
            series.observe(seconds[stage])

    def count_refusal(self, status: int) -> None:
        """Counts a request that the connection refused, before there was a route, or while its body came."""
        self.requests.labels(CONNECTION, str(status)).inc()

    def refuse(self, error: Overloaded | DeadlinePassed, images: int = 1) -> None:
        """Count images that were refused for load."""
        self.refused_images.labels(error.reason, error.stage).inc(images)

    def totals(self) -> Totals:
        """What has come of all images so far."""
        met = {sample.labels["met"]: sample.value for sample in _samples(self.deadlines, "_total")}
        return Totals(
            answered=sum(met.values()),
            met=met.get("true", 0.0),
            refused=sum(sample.value for sample in _samples(self.refused_images, "_total")),
            top1=self._top1.sum,
            known=sum(self._top1.counts),
        )

    def gauge(self, name: str, help_text: str, read: Reading) -> None:
        """Shows a value that is read when the metrics are; nothing while it is None."""
        self.registry.register(_Read(GaugeMetricFamily, name, help_text, (), _alone(read)))

    def gauges(self, name: str, help_text: str, label: str, read: Readings) -> None:
        """Shows values by that label, read when the metrics are."""
        self.registry.register(_Read(GaugeMetricFamily, name, help_text, (label,), read))

    def count(self, name: str, help_text: str, read: Reading) -> None:
        """Shows a number that only grows and is counted elsewhere."""
        self.registry.register(_Read(CounterMetricFamily, name, help_text, (), _alone(read)))

    def counts(self, name: str, help_text: str, label: str, of: Counts[str], names: Sequence[str]) -> None:
        """Shows numbers that only grow and are counted elsewhere, by that label: those of `names`, from 0 on."""
        read = partial(_named, of, names)
        self.registry.register(_Read(CounterMetricFamily, name, help_text, (label,), read))

    def show_load(self, load: Callable[[], Load], least_memory: int) -> None:
        """Shows what the machine was last used for; the GPU as far as there is one that tells."""
        self.gauge("cpus", "Processors that this process may use at once", lambda: load().cpus)
        self.gauge("cpu_busy_ratio", "Share of their time that anybody took", lambda: load().busy)
        self.gauge("cpu_ours_ratio", "Share of their time that this process took", lambda: load().ours)
        self.gauge(
            "cpu_throttled_ratio",
            "Share of the periods of a quota that ended with all of it spent",
            lambda: load().throttled,
        )
        self.gauge("memory_available_bytes", "Memory that is left to this process", lambda: load().memory_available)
        self.gauge("memory_floor_bytes", "Available memory below which requests are refused", lambda: least_memory)
        self._show_gpu(lambda: load().gpu)

    def _show_gpu(self, gpu: Callable[[], GpuLoad | None]) -> None:
        def gauge(name: str, help_text: str, of: Callable[[GpuLoad], float | None]) -> None:
            def read() -> float | None:
                now = gpu()
                return None if now is None else of(now)

            self.gauge(f"gpu_{name}", help_text, read)

        gauge("busy_ratio", "Utilization: share of time in which any process ran something", lambda now: now.busy)
        gauge("others_ratio", "Share of time that other processes took", lambda now: now.others)
        gauge("memory_used_bytes", "GPU memory in use, by anybody", lambda now: now.memory_used)
        gauge("memory_size_bytes", "GPU memory in all", lambda now: now.memory_total)
        gauge("power_watts", "Power drawn", lambda now: now.power)
        gauge("power_limit_watts", "Power that may be drawn", lambda now: now.power_limit)
        gauge("temperature_celsius", "Temperature", lambda now: now.temperature)
        self.gauges("gpu_throttled", "1 while clocks are held down, by what", "by", lambda: _throttles(gpu()))

    def show_mixed(self, mixed: Counts[str]) -> None:
        """Shows by which way batches ran that mix stitches."""
        text = "Batches of several stitches: merged (rows at the same block together) or grouped by stitch"
        self.counts("mixed_batches", text, "way", mixed, MIXED)

    def show_nvjpeg(self, files: Counts[str]) -> None:
        """Shows what became of JPEGs that might be decoded on the GPU."""
        text = (
            "JPEGs that nvJPEG decoded, and that libjpeg-turbo did: left (no plain baseline files), failed (at nvJPEG)"
        )
        self.counts("nvjpeg_files", text, "outcome", files, OUTCOMES)

    def show_staged(self, graphs: Graphs[Any], buckets: Buckets) -> None:
        """Shows the graphs and buckets of an engine on a GPU."""
        self.count("graphs_captured", "CUDA graphs recorded", lambda: graphs.captured)
        self.count("graphs_evicted", "CUDA graphs let go again", lambda: graphs.evicted)
        self.count(
            "graphs_replayed",
            "Pieces of batches, and module calls of other pieces, that ran as a graph",
            lambda: graphs.replayed,
        )
        self.gauge("graphs_bytes", "GPU memory that graphs take", lambda: graphs.bytes)
        text = "Module calls that ran without a graph: new (not recorded yet), refused (no room)"
        self.counts("eager_runs", text, "reason", graphs.eager, EAGER)
        text = "Times that the largest bucket was halved, because the GPU had no memory for it"
        self.count("bucket_halvings", text, lambda: buckets.halved)
        self.gauge("largest_bucket_rows", "Most rows that run as one piece", lambda: buckets.largest)

    def exposition(self) -> bytes:
        """All series in Prometheus' text format."""
        return generate_latest(self.registry)


class _Read(Collector):
    """A family whose samples are read when the metrics are; absent while there is nothing to be read."""

    def __init__(
        self,
        kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
        name: str,
        help_text: str,
        labels: Sequence[str],
        read: Readings,
    ) -> None:
        self._kind, self._name, self._help = kind, f"stitchserve_{name}", help_text
        self._labels, self._read = labels, read

    def describe(self) -> Iterable[Metric]:
        """The family alone: by its name no two are registered."""
        return [self._kind(self._name, self._help, labels=self._labels)]

    def collect(self) -> Iterable[Metric]:
        """The family with its samples; none without any."""
        family = self._kind(self._name, self._help, labels=self._labels)
        for label, value in self._read().items():
            family.add_metric([label] if self._labels else [], value)
        return [family] if family.samples else []


def _samples(series: Collector, ending: str) -> list[Sample]:
    return [sample for family in series.collect() for sample in family.samples if sample.name.endswith(ending)]


def _alone(read: Reading) -> Readings:
    def readings() -> Mapping[str, float]:
        value = read()
        return {} if value is None else {"": value}

    return readings


def _named(counts: Counts[str], names: Sequence[str]) -> Mapping[str, float]:
    return {name: counts[name] for name in names}


def _throttles(gpu: GpuLoad | None) -> Mapping[str, float]:
    if gpu is None or gpu.throttled is None:
        return {}
    return {reason: float(reason in gpu.throttled) for reason in THROTTLES.values()}
