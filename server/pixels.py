"""Pixels to what the engine takes: what is left to do where a picture was decoded, in this process or another.

PyTorch resizes uint8 in less time than Pillow, and is off by a grey level here and there (benchmarks/decode).
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from lookup_tables.records import Preprocessing
from server.errors import BadImage
from server.fitting import TURNS, UNTURNED, covered, scaled
from server.images import Limits, Other, Picture, read

_SLIGHTLY = 1e-9
_OVERSHOOT = 0.1 * 255  # resampling leaves the range by a few percent, a wrong normalisation by far more


def decode(
    body: bytes, preprocessing: Preprocessing, limits: Limits, *, exact: bool = False, other: Other | None = None
) -> torch.Tensor:
    """A file's bytes -> uint8 (3, size, size) on the CPU: RGB, shorter side to size / crop, centre cropped.

    Equal to timm's evaluation transform, not normalised; up to rounding where one side is over four times the other. A
    JPEG may differ by some grey levels, unless `exact`. Raises as `images.read`, which also says what `other` is.
    """
    return finish(read(body, preprocessing, limits, exact=exact, other=other), preprocessing)


def finish(picture: Picture, preprocessing: Preprocessing) -> torch.Tensor:
    """A picture that was read -> uint8 (3, size, size), a copy."""
    planes = torch.from_numpy(picture.pixels).permute(2, 0, 1)
    if picture.size is not None:
        small = resized(planes, picture.size, preprocessing)
        planes = middle(upright(small, picture.orientation), preprocessing.size)
    return planes.expand(3, -1, -1).clone(memory_format=torch.contiguous_format)


def from_pixels(pixels: NDArray[Any], preprocessing: Preprocessing) -> torch.Tensor:
    """Pixels that came decoded, (3, size, size) -> the same as uint8.

    uint8 ones are not copied where they may be written to, which nobody does, but PyTorch wants to be able to. float32
    ones are normalised as `preprocessing` says; each becomes the nearest of the 256 values that it can be: what
    was computed from 8-bit pixels is what it was. BadImage for values that no pixel has.
    """
    if pixels.dtype == np.uint8:
        return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
    std, mean = (np.array(of, np.float32).reshape(3, 1, 1) for of in (preprocessing.std, preprocessing.mean))
    with np.errstate(all="ignore"):  # what is not finite is refused
        levels = (pixels * std + mean) * 255
    if not (levels.min() >= -_OVERSHOOT and levels.max() <= 255 + _OVERSHOOT):  # not a number is neither
        raise BadImage(
            f"normalised values are not finite, or those of no pixel; from RGB in 0..1 subtract "
            f"{list(preprocessing.mean)}, then divide by {list(preprocessing.std)}"
        )
    return torch.from_numpy(np.rint(levels).clip(0, 255).astype(np.uint8))


def resized(pixels: torch.Tensor, size: tuple[int, int], preprocessing: Preprocessing) -> torch.Tensor:
    """(C, height, width) of a picture of this (width, height) -> as `scaled`, by one of QUICK.

    uint8 on the CPU, floats anywhere; these may leave the range of pixels a bit. There may
    be fewer pixels than the size, by some eighths; the last of a row or column then reaches over the edge.
    """
    width, height = scaled(size, preprocessing)
    if pixels.shape[1:] == (height, width):
        return pixels
    across, down = covered(size, (pixels.shape[2], pixels.shape[1]))
    # A bit more, or the size would be rounded down to a pixel less.
    factors = (height / down * (1 + _SLIGHTLY), width / across * (1 + _SLIGHTLY))
    return functional.interpolate(
        pixels.unsqueeze(0), scale_factor=factors, mode=preprocessing.interpolation, antialias=True
    ).squeeze(0)


def upright(pixels: torch.Tensor, orientation: int) -> torch.Tensor:
    """(C, height, width) as stored -> as it is to be seen, by its EXIF orientation."""
    turned, flips = TURNS.get(orientation, UNTURNED)
    pixels = pixels.transpose(1, 2) if turned else pixels
    return pixels.flip(flips) if flips else pixels


def middle(pixels: torch.Tensor, side: int) -> torch.Tensor:
    """(C, height, width) -> the (C, side, side) in the middle, with torchvision's rounding."""
    left, top = round((pixels.shape[2] - side) / 2), round((pixels.shape[1] - side) / 2)
    return pixels[:, top : top + side, left : left + side]
