"""JPEGs decoded by the GPU: by nvJPEG, which torchvision has, resized there, brought back as the network takes them.

Pixels differ from libjpeg-turbo's: nvJPEG repeats chroma where that one interpolates it, and is given no scale, so that
a large picture is made smaller by averages here. Files come from anybody, and what reads them is a library without
source, in this process, on the device that serves: it gets what is `wellformed` alone, without metadata.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from queue import SimpleQueue
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchvision.io import ImageReadMode

from lookup_tables.records import Preprocessing
from server.jpeg import Header, least
from server.pixels import middle, resized, upright
from server.wellformed import plain

LANES = 2
"""Files at once. torchvision lets one in at a time, while the other is resized; more would wait holding memory: up to
15 bytes a pixel of a small picture, 9 of a large one, and what nvJPEG takes itself."""

Decode = Callable[[Tensor, bool], Tensor]
"""A file, uint8 (bytes,) on the CPU, and whether it is gray -> uint8 (3 or, if gray, 1; height; width) on a device."""
Lane = Callable[[], AbstractContextManager[object]]
"""Makes a stream the current one; no two threads use a lane at once."""


class NvJpeg:
    """A decoder as `images.read` takes it, for any number of threads."""

    def __init__(self, decode: Decode, lanes: Sequence[Lane], preprocessing: Preprocessing) -> None:
        self._decode, self._preprocessing = decode, preprocessing
        self._lanes: SimpleQueue[Lane] = SimpleQueue()
        for lane in lanes:
            self._lanes.put(lane)
        self._counting = Lock()
        self.files: Counter[str] = Counter()
        """What became of them: decoded, left (they were not `plain`), or failed."""
        self.failure: str | None = None
        """What the last fault was."""

    def __call__(self, body: bytes, header: Header, orientation: int) -> NDArray[np.uint8] | None:
        """As `images.Other`; None as well where the device fails: the engine finds out whether that is for good."""
        file = plain(body, header)
        if file is None:
            self._count("left")
            return None
        try:
            with self._lane():
                pixels = self._pixels(torch.frombuffer(file, dtype=torch.uint8), header, orientation)
        except RuntimeError as error:
            self.failure = str(error).partition("\n")[0]
            self._count("failed")
            return None
        self._count("decoded")
        found: NDArray[np.uint8] = pixels.permute(1, 2, 0).numpy()
        return found

    def _pixels(self, file: Tensor, header: Header, orientation: int) -> Tensor:
        planes = self._decode(file, header.colours == "GRAY")
        if (planes.shape[2], planes.shape[1]) != header.size:
            raise RuntimeError(f"a picture of {header.size} was decoded to {tuple(planes.shape)}")
        small = resized(smaller(planes, least(self._preprocessing)), header.size, self._preprocessing)
        shown = middle(upright(small, orientation), self._preprocessing.size)
        return shown.round().clamp(0, 255).to(torch.uint8).cpu()

    @contextmanager
    def _lane(self) -> Iterator[None]:
        lane = self._lanes.get()
        try:
            with lane():
                yield
        finally:
            self._lanes.put(lane)

    def _count(self, outcome: str) -> None:
        with self._counting:
            self.files[outcome] += 1


def smaller(planes: Tensor, least: int) -> Tensor:
    """uint8 (C, height, width) -> floats, an eighth, a quarter, half as wide and high while both sides keep `least`.

    By averages, as libjpeg-turbo does; a side is rounded up.
    """
    side = min(planes.shape[1:])
    factor = next((factor for factor in (8, 4, 2) if -(-side // factor) >= least), 1)
    if factor == 1:
        return planes.float()
    # float16 holds all 256 levels, in half the memory of the largest tensor there is.
    return functional.avg_pool2d(planes.half().unsqueeze(0), factor, ceil_mode=True).squeeze(0).float()


def on_gpu(device: torch.device, preprocessing: Preprocessing) -> NvJpeg:
    """nvJPEG on a CUDA device. Raises RuntimeError or AttributeError where torchvision has none."""
    place = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    # By its operator: decode_jpeg warns, since 0.29 with every call, that torchcodec is to come after it.
    decode = partial(_decoded, torch.ops.image.decode_jpegs_cuda, place)
    return NvJpeg(decode, [_on_stream_of(place) for _ in range(LANES)], preprocessing)


def _decoded(operator: Callable[..., Sequence[Tensor]], device: torch.device, file: Tensor, gray: bool) -> Tensor:
    mode = ImageReadMode.GRAY if gray else ImageReadMode.RGB
    return operator([file], mode.value, device)[0]


def _on_stream_of(device: torch.device) -> Lane:
    # torch hands out the same few streams again and again, but those with a priority are none of the engine's.
    stream: torch.cuda.Stream = torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]

    @contextmanager
    def lane() -> Iterator[None]:
        with torch.cuda.stream(stream):
            try:
                yield
            finally:
                # The next file gets this one's memory, and nvJPEG writes to it on a stream of its own without waiting.
                stream.synchronize()

    return lane
