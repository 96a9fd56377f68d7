"""What /metrics shows, and by which names: Prometheus' own conventions, and nothing where nothing is known."""

import re
import shutil
import subprocess
from collections import Counter
from importlib.metadata import version

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.errors import DeadlinePassed, Overloaded
from server.graphs import EAGER, Buckets, Graphs
from server.metrics import Metrics
from server.monitor import Load
from server.nvml import THROTTLES, GpuLoad

NAME = re.compile(r"stitchserve(_[a-z0-9]+)+")
PROMTOOL = shutil.which("promtool")

Samples = dict[tuple[str, ...], float]


def parsed(text: str) -> Samples:
    families = text_string_to_metric_families(text)
    return {
        (s.name, *(s.labels[label] for label in sorted(s.labels))): s.value
        for family in families
        for s in family.samples
    }


class Gpu:
    """The metrics of a server on a GPU, and what they are read from."""

    def __init__(self) -> None:
        self.metrics, self.load, self.mixed = Metrics(), Load(gpu=GpuLoad(throttled=())), Counter[str]()
        self.graphs: Graphs[str] = Graphs(1000)
        self.files = Counter[str]()
        self.buckets = Buckets(8)
        self.metrics.show_load(lambda: self.load, 99)
        self.metrics.show_mixed(self.mixed)
        self.metrics.show_nvjpeg(self.files)
        self.metrics.show_staged(self.graphs, self.buckets)

    def samples(self) -> Samples:
        return parsed(self.metrics.exposition().decode())


@pytest.fixture
def gpu() -> Gpu:
    return Gpu()


def named(samples: Samples, start: str) -> Samples:
    return {key: value for key, value in samples.items() if key[0].startswith(f"stitchserve_{start}")}


def test_what_nvml_tells_is_shown_in_plain_units(gpu: Gpu) -> None:
    gpu.load = Load(gpu=GpuLoad(0.8, 0.3, 3_000, 10_000, 250.5, 700.0, 61, ("power cap",)))
    shown = named(gpu.samples(), "gpu_")
    throttled = {key[1]: shown.pop(key) for key in list(shown) if key[0] == "stitchserve_gpu_throttled"}
    assert throttled == {reason: float(reason == "power cap") for reason in THROTTLES.values()}
    assert shown == {
        ("stitchserve_gpu_busy_ratio",): 0.8,
        ("stitchserve_gpu_others_ratio",): 0.3,
        ("stitchserve_gpu_memory_used_bytes",): 3_000,
        ("stitchserve_gpu_memory_size_bytes",): 10_000,
        ("stitchserve_gpu_power_watts",): 250.5,
        ("stitchserve_gpu_power_limit_watts",): 700.0,
        ("stitchserve_gpu_temperature_celsius",): 61,
    }


def test_what_is_not_known_of_a_gpu_is_absent_rather_than_zero(gpu: Gpu) -> None:
    gpu.load = Load(gpu=GpuLoad(memory_used=0))
    assert named(gpu.samples(), "gpu_") == {("stitchserve_gpu_memory_used_bytes",): 0}
    gpu.load = Load(gpu=None)
    assert named(gpu.samples(), "gpu_") == {}
    assert "gpu" not in gpu.metrics.exposition().decode(), "not even a heading"


def test_the_machines_memory_and_processors_are_those_of_the_last_sample(gpu: Gpu) -> None:
    gpu.load = Load(busy=0.5, ours=0.25, cpus=1.5, throttled=0.1, memory_available=1234)
    samples = gpu.samples()
    expected = {"cpus": 1.5, "cpu_busy_ratio": 0.5, "cpu_ours_ratio": 0.25, "cpu_throttled_ratio": 0.1}
    expected |= {"memory_available_bytes": 1234, "memory_floor_bytes": 99}
    assert {name: samples[f"stitchserve_{name}",] for name in expected} == expected


def test_graphs_and_eager_runs_are_counted_by_reason_from_zero_on(gpu: Gpu) -> None:
    assert set(named(gpu.samples(), "eager_runs").values()) == {0}
    gpu.graphs.wanted("a")
    gpu.graphs.add("a", "graph", own=30, shared=40)
    gpu.graphs.add("b", "graph", own=2000, shared=0)
    gpu.graphs.refuse("c")
    gpu.graphs.wanted("c")
    samples = gpu.samples()
    assert samples["stitchserve_graphs_captured_total",] == 2
    assert samples["stitchserve_graphs_evicted_total",] == 2
    assert samples["stitchserve_graphs_bytes",] == 0
    eager = {reason: samples["stitchserve_eager_runs_total", reason] for reason in EAGER}
    assert eager == {"new": 1, "refused": 1}


def test_running_out_of_memory_shows_in_the_largest_bucket(gpu: Gpu) -> None:
    gpu.buckets.halve()
    gpu.buckets.halve()
    samples = gpu.samples()
    assert samples["stitchserve_bucket_halvings_total",] == 2
    assert samples["stitchserve_largest_bucket_rows",] == 2


def test_mixed_batches_are_counted_by_way(gpu: Gpu) -> None:
    gpu.mixed["grouped"] += 3
    assert named(gpu.samples(), "mixed_batches") == {
        ("stitchserve_mixed_batches_total", "merged"): 0,
        ("stitchserve_mixed_batches_total", "grouped"): 3,
    }


def test_files_are_counted_by_what_nvjpeg_did_with_them(gpu: Gpu) -> None:
    gpu.files["left"] += 2
    assert named(gpu.samples(), "nvjpeg_files") == {
        ("stitchserve_nvjpeg_files_total", "decoded"): 0,
        ("stitchserve_nvjpeg_files_total", "left"): 2,
        ("stitchserve_nvjpeg_files_total", "failed"): 0,
    }


@pytest.mark.parametrize(
    ("error", "labels"),
    [
        (DeadlinePassed("late"), ("late", "queue")),
        (DeadlinePassed("late", stage="decode"), ("late", "decode")),
        (Overloaded("no"), ("doomed", "arrival")),
        (Overloaded("no", stage="queue"), ("doomed", "queue")),
        (Overloaded("no", reason="memory"), ("memory", "arrival")),
    ],
)
def test_a_refused_image_is_counted_by_reason_and_stage(
    gpu: Gpu, error: DeadlinePassed | Overloaded, labels: tuple[str, str]
) -> None:
    before = named(gpu.samples(), "refused_images_total")
    assert set(before.values()) == {0}
    gpu.metrics.refuse(error)
    after = named(gpu.samples(), "refused_images_total")
    assert {key[1:] for key, value in after.items() if value} == {labels}
    assert after.keys() == before.keys(), "no label is new"


def test_no_name_is_taken_twice(gpu: Gpu) -> None:
    with pytest.raises(ValueError, match="Duplicated"):
        gpu.metrics.gauge("cpus", "again", lambda: 0.0)


def check(text: str) -> None:
    """By Prometheus' naming conventions: help everywhere, `_total` on counters alone, base units."""
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert NAME.fullmatch(family.name)
        assert family.documentation
        assert not family.name.endswith(("_total", "_ms", "_percent", "_mb", "_milliseconds"))
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter" and not sample.name.endswith("_created"))
            assert len(sample.labels) <= 2 or sample.name == "stitchserve_build_info"
    if PROMTOOL:
        told = subprocess.run([PROMTOOL, "check", "metrics"], input=text, text=True, capture_output=True, check=False)
        assert (told.returncode, told.stdout + told.stderr) == (0, "")


def test_everything_shown_keeps_to_the_conventions(gpu: Gpu) -> None:
    gpu.load = Load(gpu=GpuLoad(0.8, 0.3, 3_000, 10_000, 250.5, 700.0, 61, ("power cap",)))
    gpu.metrics.requests.labels("/classify", "200").inc()
    check(gpu.metrics.exposition().decode())


def series(client: httpx.Client) -> Samples:
    return parsed(client.get("/metrics").text)


def post(client: httpx.Client, body: bytes, query: str) -> httpx.Response:
    return client.post(f"/classify?{query}", content=body, headers={"content-type": "image/jpeg"})


def test_metrics_count_each_request_once(client: httpx.Client, sample: bytes) -> None:
    before = series(client)
    assert post(client, sample, "stitch=1").status_code == 200
    assert post(client, sample, "stitch=999").status_code == 422
    client.get("/no/such/route/17")
    after = series(client)

    def grown(*key: str) -> float:
        return after[key] - before.get(key, 0.0)

    assert grown("stitchserve_requests_total", "/classify", "200") == 1
    assert grown("stitchserve_requests_total", "/classify", "422") == 1
    assert grown("stitchserve_requests_total", "unmatched", "404") == 1
    assert grown("stitchserve_request_seconds_count", "/classify") == 2
    assert grown("stitchserve_served_flops_count") == 1
    assert grown("stitchserve_served_flops_sum") == client.get("/stitches").json()["stitches"][1]["flops"]
    assert grown("stitchserve_served_top1_ratio_count") == 1
    assert after[("stitchserve_queue_depth",)] == 0


@pytest.mark.parametrize("model", ["/v2/models/{name}", "/v2/models/{name}/versions/{version}"])
@pytest.mark.parametrize(
    ("method", "below", "status"), [("GET", "", 200), ("GET", "/config", 200), ("POST", "/infer", 400)]
)
def test_routes_are_named_from_their_beginning(
    client: httpx.Client, model: str, method: str, below: str, status: int
) -> None:
    key = "stitchserve_requests_total", model + below, str(status)
    before = series(client).get(key, 0.0)
    assert client.request(method, model.format(name="auto", version="1") + below).status_code == status
    assert series(client)[key] == before + 1


def test_all_metrics_keep_to_prometheus_conventions_and_none_is_of_a_gpu_that_is_not_there(
    client: httpx.Client,
) -> None:
    text = client.get("/metrics").text
    check(text)
    assert "stitchserve_gpu_" not in text
    assert "stitchserve_graphs_" not in text
    shown = series(client)
    assert shown[("stitchserve_cpus",)] > 0
    assert shown[("stitchserve_memory_available_bytes",)] > shown[("stitchserve_memory_floor_bytes",)] > 0
    assert ("stitchserve_mixed_batches_total", "merged") in shown
    assert shown[("stitchserve_queue_oldest_seconds",)] == 0
    assert 0 <= shown[("stitchserve_profile_age_seconds",)] < 3 * 24 * 3600, "measured when the tests began"
    assert "stitchserve_build_info{" in text
    assert f'version="{version("stitchserve")}"' in text
    assert 'family="digits"' in text


def test_an_image_that_is_refused_for_load_is_counted_once(client: httpx.Client, sample: bytes) -> None:
    before = series(client)
    assert post(client, sample, "deadline_ms=0.001&on_infeasible=nearest").status_code == 504
    files = [("image", ("a.jpg", sample, "image/jpeg"))] * 3
    assert client.post("/classify/batch?deadline_ms=0.001&on_infeasible=nearest", files=files).status_code == 200
    after = series(client)
    key = ("stitchserve_refused_images_total", "late", "receive")
    assert after[key] - before[key] == 4
