"""The device that computes: which one it is, what it is called, what it can do."""

import platform
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from lookup_tables.profile import device_slug

CPUINFO = Path("/proc/cpuinfo")
PRODUCTS: Mapping[torch.dtype, frozenset[str]] = {
    torch.float16: frozenset({"avx512_fp16", "amx_fp16", "asimdhp"}),
    torch.bfloat16: frozenset({"avx512_bf16", "amx_bf16", "bf16"}),
}
"""The processor features, as Linux names them, that multiply 16-bit numbers natively: x86, then Arm."""
TENSOR_CORES: Mapping[torch.dtype, tuple[int, int]] = {torch.float16: (7, 0), torch.bfloat16: (8, 0)}
"""The CUDA capability from which on tensor cores take each 16-bit format."""


class Processor(NamedTuple):
    """A processor's name, and its features as Linux lists them; none elsewhere."""

    name: str
    features: frozenset[str]

    @property
    def formats(self) -> tuple[torch.dtype, ...]:
        """The 16-bit formats that it multiplies natively, as far as is known."""
        return tuple(dtype for dtype, features in PRODUCTS.items() if self.features & features)


def pick_device(name: str) -> torch.device:
    """The device of that name; `auto` is CUDA where there is one. ValueError for one that is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device: {name!r} cannot be used here ({str(error).splitlines()[0]})") from error
    return device


def slug(device: torch.device) -> str:
    """The device's name in latency files."""
    if device.type == "cuda":
        return device_slug("cuda", torch.cuda.get_device_name(device))
    return device_slug("cpu", processor().name, torch.get_num_threads())


def gpu_uuid(device: torch.device) -> str | None:
    """The UUID of a GPU, as CUDA gives it; None for a CPU."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else None


def narrow_formats(device: torch.device) -> tuple[torch.dtype, ...]:
    """The 16-bit formats that a device multiplies natively, the more exact first."""
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return tuple(dtype for dtype, least in TENSOR_CORES.items() if capability >= least)
    return processor().formats if device.type == "cpu" else ()


def gpu_facts(device: torch.device) -> Mapping[str, str]:
    """What a person wants to know of a GPU; nothing for a CPU."""
    if device.type != "cuda":
        return {}
    properties = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": str(properties.multi_processor_count),
        "memory": f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free",
        "cuda": str(torch.version.cuda),
    }


def product_rate(device: torch.device, dtype: torch.dtype, clock: Callable[[], float] = time.perf_counter) -> float:
    """Floating-point operations a second of a large matrix product: what no network here can exceed."""
    side, times = 1536, 5
    a, b = (torch.ones(side, side, dtype=dtype, device=device) for _ in range(2))
    took: list[float] = []
    for _ in range(times):
        start = clock()
        (a @ b)[0, 0].item()  # which waits for the device
        took.append(clock() - start)
    return 2 * side**3 / min(took)


@cache
def processor(cpuinfo: Path = CPUINFO) -> Processor:
    """The processor as Linux describes it, or as Python knows it."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    known: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        known.setdefault(key.strip().lower(), value.strip())
    features = known.get("flags", known.get("features", ""))  # x86, Arm
    return Processor(known.get("model name") or platform.processor() or platform.machine(), frozenset(features.split()))
