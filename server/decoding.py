"""What decodes JPEGs: as it was set, or what is faster here, by measurement."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal, NamedTuple

import torch

from lookup_tables.records import Preprocessing
from server import jpeg, nvjpeg
from server.images import Limits
from server.nvjpeg import NvJpeg
from server.pixels import decode
from server.schemas import DecoderName, DecoderUsed
from server.trials import Clock, in_turns

Setting = Literal["fast", "turbo", "exact"]
Ways = Mapping[DecoderName, Callable[[bytes], object]]
AS_SET = "as set"

LEAST_GAIN = 1.2  # pixels are less like libjpeg's, so it must save something
FILES = 4  # that each thread decodes in a trial


class Decoding(NamedTuple):
    """What decodes them, why, and the decoder where that is the GPU's."""

    name: DecoderName
    reason: str
    nvjpeg: NvJpeg | None = None

    @property
    def used(self) -> DecoderUsed:
        """As it is shown."""
        failed, failure = (self.nvjpeg.files["failed"], self.nvjpeg.failure) if self.nvjpeg else (0, None)
        return DecoderUsed(name=self.name, reason=self.reason, failed=failed, failure=failure)


def as_set(setting: Setting) -> Decoding:
    """Without a GPU."""
    return Decoding("exact" if setting == "exact" else "turbo", AS_SET)


def choose(
    setting: Setting,
    device: torch.device,
    threads: int,
    preprocessing: Preprocessing,
    *,
    frontends: int = 0,
    find: Callable[[torch.device, Preprocessing], NvJpeg] = nvjpeg.on_gpu,
    clock: Clock = time.perf_counter,
) -> Decoding:
    """What is to decode, on so many threads beside an engine on this device.

    `fast` is nvJPEG where the engine's GPU has it, this process decodes, and it then decodes more files a second.
    """
    if setting != "fast":
        return as_set(setting)
    if device.type != "cuda":
        return Decoding("turbo", "the engine is on no CUDA GPU")
    if frontends:
        return Decoding("turbo", "front ends decode, and they know no GPU")
    try:
        found = find(device, preprocessing)
    except (RuntimeError, AttributeError) as error:
        return Decoding("turbo", f"there is no nvJPEG: {str(error).partition(chr(10))[0]}")
    return faster(found, threads, preprocessing, clock)


def faster(found: NvJpeg, threads: int, preprocessing: Preprocessing, clock: Clock) -> Decoding:
    """nvJPEG if it works and gains enough, with nothing counted yet; else libjpeg-turbo."""
    turbo = partial(decode, preprocessing=preprocessing, limits=Limits())
    files = [jpeg.sample()] * (FILES * threads)
    rates = measured({"turbo": turbo, "nvjpeg": partial(turbo, other=found)}, files, threads, clock)
    if found.files["failed"] or not found.files["decoded"]:
        return Decoding("turbo", f"nvJPEG does not work: {found.failure or 'it has nothing to do for this family'}")
    told = f"{rates['nvjpeg']:.0f} images/s by nvJPEG, {rates['turbo']:.0f} by libjpeg-turbo, {threads} at once"
    if rates["nvjpeg"] < LEAST_GAIN * rates["turbo"]:
        return Decoding("turbo", f"nvJPEG gains too little: {told}")
    found.files.clear()
    return Decoding("nvjpeg", told, found)


def measured(
    ways: Ways, files: Sequence[bytes], threads: int, clock: Clock = time.perf_counter
) -> Mapping[DecoderName, float]:
    """Files a second by each way, decoded by so many threads at once, at best."""
    with ThreadPoolExecutor(threads, "decode-trial") as pool:
        took = in_turns({name: partial(_all, pool, way, files) for name, way in ways.items()}, clock)
    return {name: len(files) / min(seconds) for name, seconds in took.items()}


def _all(pool: ThreadPoolExecutor, way: Callable[[bytes], object], files: Sequence[bytes]) -> None:
    for _ in pool.map(way, files):
        pass
