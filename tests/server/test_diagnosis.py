"""What the doctor says."""

import json

import pytest

from server.diagnosis import Cores, Diagnosis, Speed
from server.nvml import GpuLoad

HEALTHY = Diagnosis(
    family="digits",
    stitches=47,
    frontier=16,
    accuracy_known=True,
    weights="digits.safetensors",
    weight_bytes=5_100_000,
    torch="2.9",
    device="cpu-x-8threads",
    processor="X",
    features=["avx512_bf16"],
    multiplies_16_bits=True,
    cores=Cores(allowed=8, quota=8, threads=8, reason="as set"),
    load_average=0.5,
    dtype="bfloat16",
    dtype_reason="measured",
    dtype_ratio=1.9,
    decoder="turbo",
    decoder_reason="measured",
    frontends=0,
    keeps_freed_memory=True,
    spin_count="2000",
    table="tables/digits",
    latencies="latency.csv",
    latencies_dtype="bfloat16",
    product_gflops=400.0,
    speeds=[Speed(stitch=2, route="digits_l[0:8]", batch=8, ms=4, images_per_second=2000, share_of_products=0.4)],
    gpu={},
    gpu_load=None,
)
GPU = HEALTHY.model_copy(update={"gpu": {"name": "H100"}, "gpu_load": GpuLoad(others=0.0)})


def test_nothing_limits_a_healthy_machine() -> None:
    assert HEALTHY.limits == []
    assert GPU.limits == []


def test_beside_a_gpu_processors_to_spare_are_for_front_ends() -> None:
    many = Cores(allowed=16, quota=12, threads=1, reason="the GPU computes")
    (limit,) = GPU.model_copy(update={"frontends": 0, "cores": many}).limits
    assert "--frontends 8" in limit
    assert GPU.model_copy(update={"frontends": 8, "cores": many}).limits == []
    assert GPU.model_copy(update={"frontends": 0}).limits == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"latencies": None, "latencies_dtype": None}, "no latency table for this device"),
        ({"latencies_dtype": "float32"}, "measured in float32, not bfloat16"),
        ({"accuracy_known": False}, "no top-1"),
        ({"multiplies_16_bits": False}, "no 16-bit products"),
        ({"cores": Cores(allowed=8, quota=3.5, threads=3, reason="as set")}, "a quota of 3.5 CPUs on 8"),
        ({"cores": Cores(allowed=2, quota=2, threads=2, reason="as set")}, "2 cores: decoding images shares them"),
        ({"load_average": 13.0}, "load average 13.0"),
        ({"keeps_freed_memory": False}, "freed memory goes back"),
    ],
)
def test_each_limit_is_named_alone(changes: dict[str, object], says: str) -> None:
    (limit,) = HEALTHY.model_copy(update=changes).limits
    assert says in limit
    assert limit in HEALTHY.model_copy(update=changes).text()


@pytest.mark.parametrize(
    ("load", "says"),
    [
        (None, "NVML does not answer"),
        (GpuLoad(others=0.4), "others take 40% of the GPU's time"),
        (GpuLoad(throttled=("power cap",)), "throttled: power cap"),
    ],
)
def test_a_gpus_limits_are_its_own(load: GpuLoad | None, says: str) -> None:
    (limit,) = GPU.model_copy(update={"gpu_load": load, "load_average": 99.0, "multiplies_16_bits": False}).limits
    assert says in limit


def test_the_text_has_what_the_json_has() -> None:
    text = GPU.text()
    for part in ("47 stitches", "5.1 MB", "name H100", "bfloat16 (x1.90): measured", "2000 images/s", "400 GFLOP/s"):
        assert part in text
    assert json.loads(GPU.model_dump_json())["limits"] == []
