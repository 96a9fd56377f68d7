"""Histograms and summaries show what prometheus_client's own show."""

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from server.distributions import Distributions

BOUNDS = (0.001, 0.5, 1, 2.5, 10)
VALUES = (0.0, 0.0005, 0.001, 0.0011, 0.5, 1.0, 1.5, 2.5, 10.0, 11.0, 1e6)


def shown(collector: Collector) -> list[str]:
    registry = CollectorRegistry()
    registry.register(collector)
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


@pytest.mark.parametrize("label", [None, "route"])
def test_a_histogram(label: str | None) -> None:
    labels = [label] if label else []
    theirs = prometheus_client.Histogram("name", "help", labels, buckets=BOUNDS, registry=None)
    ours = Distributions("name", "help", BOUNDS, label)
    for value in VALUES:
        for route in labels and ("/a", "/b"):
            theirs.labels(route).observe(value)
            ours.of(route).observe(value)
        if not label:
            theirs.observe(value)
            ours.of().observe(value)
    assert shown(ours) == shown(theirs)


def test_a_summary() -> None:
    theirs = prometheus_client.Summary("name", "help", registry=None)
    ours = Distributions("name", "help")
    assert shown(ours) == shown(theirs)
    for value in VALUES:
        theirs.observe(value)
        ours.of().observe(value)
    assert shown(ours) == shown(theirs)


def test_with_a_label_nothing_is_shown_before_something_is_seen() -> None:
    ours, theirs = (
        Distributions("name", "help", BOUNDS, "route"),
        prometheus_client.Histogram("name", "help", ["route"], buckets=BOUNDS, registry=None),
    )
    assert shown(ours) == shown(theirs)
