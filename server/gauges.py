"""What /metrics reads of a running service each time it is asked."""

from importlib.metadata import version

from server.latencies import age
from server.service import Service


def show(service: Service) -> None:
    """Let the service's metrics show it; once, for they would refuse a second time."""
    gauge, ours = service.metrics.gauge, service.controller
    gauge("front_seconds", "Until one more image would be in the queue", lambda: service.front.wait)
    gauge("reply_seconds", "From the end of a batch to an answer, usually", lambda: service.front.reply)
    gauge("queue_depth", "Requests waiting for the engine", lambda: service.batcher.queued)
    gauge("queue_oldest_seconds", "Since the request that waits longest does", lambda: service.batcher.oldest)
    gauge("requests_inside", "Requests admitted and not yet answered", lambda: service.limiter.inside)
    gauge("bodies_arriving", "Requests whose body is on its way in", lambda: len(service.bodies.arriving))
    gauge("body_bytes", "Bytes of requests' bodies in memory", lambda: service.bodies.held)
    gauge("level_flops", "FLOPs of the dearest stitch the last batch could afford", lambda: ours.level.flops)
    gauge("drift_ratio", "Observed over profiled latency", lambda: ours.drift.center)
    gauge("drift_upper_ratio", "Observed over profiled latency that is planned with", lambda: ours.drift.upper)
    service.metrics.count("batch_seconds", "Seconds that batches took", lambda: ours.observed)
    service.metrics.count("predicted_seconds", "Seconds of the same batches by the table", lambda: ours.predicted)
    gauge("pad_seconds", "What a batch is planned to lose beside that", lambda: ours.drift.margin.pad)
    gauge(
        "promised_miss_ratio",
        "Share of batches that may take longer than planned",
        lambda: ours.drift.margin.miss_probability,
    )
    gauge(
        "observed_miss_ratio",
        "Share of batches that took longer than planned",
        lambda: ours.drift.margin.missed,
    )
    gauge("predicted_drain_seconds", "Until all inside could be answered", service.drain)
    gauge("headroom_ratio", "Share of the machine that others leave to this server", service.headroom)
    gauge("profile_age_seconds", "Since the day on which latencies were measured", lambda: age(service.table.latency))
    gauge("ready", "1 when requests are welcome", lambda: float(service.ready()))
    service.metrics.show_load(lambda: service.monitor.load, service.settings.min_memory_bytes)
    service.metrics.show_mixed(service.engine.mixed)
    if used := service.decoding.nvjpeg:
        service.metrics.show_nvjpeg(used.files)
    if staged := service.engine.staged:
        service.metrics.show_staged(staged.graphs, staged.buckets)
    service.metrics.build.info(
        {
            "version": version("stitchserve"),
            "torch": version("torch"),
            "family": service.table.family.name,
            "device": service.engine.device_slug,
            "dtype": service.engine.precision.variant.name,
        }
    )
