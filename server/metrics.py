"""Every series that /metrics shows, in one registry of its own."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
CONNECTION = "connection"
"""The route of what came to none: no request, one too long or too slow, or one connection too many."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The counters. Labels hold route templates and statuses only, so their number does not grow with the traffic."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "stitchserve_requests", "Requests by route and status", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "stitchserve_request_seconds", "From arrival to answer", ["route"], buckets=SECONDS, registry=self.registry
        )
        self.stage_seconds = Histogram(
            "stitchserve_stage_seconds",
            "Decode, queue and compute time of answered images",
            ["stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.flops = Summary(
            "stitchserve_served_flops", "FLOPs (multiply-adds) of the stitches that answered", registry=self.registry
        )
        self.top1 = Summary(
            "stitchserve_served_top1_ratio", "Top-1 of the stitches that answered, 0 to 1", registry=self.registry
        )
        self.deadlines = Counter(
            "stitchserve_deadlines", "Answered images, in time or not", ["met"], registry=self.registry
        )
        self.batch_rows = Histogram(
            "stitchserve_batch_rows", "Images in a batch", buckets=(1, 2, 4, 8, 16, 32, 64), registry=self.registry
        )

        self.dispatches = Counter(
            "stitchserve_dispatch",
            "Batches by why they held no more: full, drained (nobody else waited), or what the policy says",
            ["reason"],
            registry=self.registry,
        )

    def count_refusal(self, status: int) -> None:
        """Counts a request that the connection refused, before there was a route, or while its body came."""
        self.requests.labels(CONNECTION, str(status)).inc()

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Shows a value that is read when the metrics are."""
        Gauge(f"stitchserve_{name}", help_text, registry=self.registry).set_function(read)

    def exposition(self) -> bytes:
        """All series in Prometheus' text format."""
        return generate_latest(self.registry)
