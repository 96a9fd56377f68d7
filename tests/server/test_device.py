"""Which device computes, and what it can do."""

from pathlib import Path

import pytest
import torch

from server.device import Processor, gpu_facts, gpu_uuid, pick_device, processor, product_rate, slug

CPU = torch.device("cpu")


def test_a_device_that_is_not_here_is_named() -> None:
    with pytest.raises(ValueError, match="'cuda:99' cannot be used"):
        pick_device("cuda:99")
    with pytest.raises(ValueError, match="'potato' cannot be used"):
        pick_device("potato")


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (
            "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu avx512_bf16\n\nprocessor\t: 1\nmodel name\t: B\n",
            Processor("A CPU", frozenset({"fpu", "avx512_bf16"})),
        ),
        ("processor\t: 0\nFeatures\t: fp asimdhp bf16\n", Processor("", frozenset({"fp", "asimdhp", "bf16"}))),
    ],
    ids=["x86", "Arm"],
)
def test_linux_tells_name_and_features(tmp_path: Path, text: str, known: Processor) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(text)
    found = processor(cpuinfo)
    assert found.features == known.features
    assert found.name == known.name or (not known.name and found.name)


def test_elsewhere_python_tells_the_name(tmp_path: Path) -> None:
    found = processor(tmp_path / "none")
    assert found.name
    assert found.features == frozenset()


@pytest.mark.parametrize(
    ("features", "formats"),
    [
        ("avx2", ()),
        ("avx512f avx512_vnni", ()),
        ("avx512_bf16", (torch.bfloat16,)),
        ("amx_bf16 avx512_fp16", (torch.float16, torch.bfloat16)),
        ("asimdhp", (torch.float16,)),
    ],
)
def test_the_features_say_which_products_are_native(features: str, formats: tuple[torch.dtype, ...]) -> None:
    assert Processor("x", frozenset(features.split())).formats == formats


def test_the_rate_of_products_is_that_of_the_fastest_one() -> None:
    ticks = iter([0.0, 3.0, 3.0, 4.0, 4.0, 6.0, 6.0, 8.0, 8.0, 10.0])
    assert product_rate(CPU, torch.float32, lambda: next(ticks)) == 2 * 1536**3 / 1.0


def test_a_processor_is_no_gpu() -> None:
    assert slug(CPU).startswith("cpu-")
    assert gpu_uuid(CPU) is None
    assert gpu_facts(CPU) == {}
