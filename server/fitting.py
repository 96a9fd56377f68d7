"""A picture of any size to what a network takes: the shorter side to size / crop, then the middle size x size.

Two ways there: Pillow's resizing, which is what timm does, and PyTorch's on uint8, which takes less time and is off
by a grey level here and there (benchmarks/decode).
"""

import math

import torch
from PIL import Image
from torch.nn import functional

from lookup_tables.table import Preprocessing

_LONGEST = 4  # times the shorter side: up to here a picture is resized as a whole
_WIDEST_FILTER = 3  # pixels either side, Lanczos
_SLIGHTLY = 1e-9
QUICK = ("bilinear", "bicubic")
"""The filters that PyTorch has for uint8."""


def needed(preprocessing: Preprocessing) -> int:
    """Pixels of the shorter side before the middle is cut out."""
    return math.floor(preprocessing.size / preprocessing.crop)


def scaled(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """What a picture of this size is resized to, with timm's and torchvision's rounding."""
    width, height = (int(needed(preprocessing) * side / min(size)) for side in size)
    return width, height


def is_long(size: tuple[int, int]) -> bool:
    """Whether so much of a picture is cut away that only a part is resized."""
    return max(size) > _LONGEST * min(size)


def resized(pixels: torch.Tensor, size: tuple[int, int], preprocessing: Preprocessing) -> torch.Tensor:
    """uint8 (C, height, width) of a picture of this (width, height) -> as `scaled`, by one of QUICK.

    The pixels may be fewer than the size, by some eighths; the last of a row or column then reaches over the edge.
    """
    width, height = scaled(size, preprocessing)
    if pixels.shape[1:] == (height, width):
        return pixels
    covered = (size[1] * _eighths(pixels.shape[1], size[1]), size[0] * _eighths(pixels.shape[2], size[0]))
    # A bit more, or the size would be rounded down to a pixel less.
    factors = (height / covered[0] * (1 + _SLIGHTLY), width / covered[1] * (1 + _SLIGHTLY))
    return functional.interpolate(
        pixels.unsqueeze(0), scale_factor=factors, mode=preprocessing.interpolation, antialias=True
    ).squeeze(0)


def _eighths(pixels: int, of: int) -> float:
    """The scale, in eighths rounded down, at which so many pixels are decoded: they are rounded up."""
    return (8 * pixels // of) / 8


def middle(pixels: torch.Tensor, side: int) -> torch.Tensor:
    """(C, height, width) -> the (C, side, side) in the middle, with torchvision's rounding."""
    left, top = round((pixels.shape[2] - side) / 2), round((pixels.shape[1] - side) / 2)
    return pixels[:, top : top + side, left : left + side]


def fit(picture: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """The shorter side to floor(size / crop), then the middle size x size, with timm's and torchvision's rounding."""
    size = preprocessing.size
    width, height = scaled(picture.size, preprocessing)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resample = Image.Resampling[preprocessing.interpolation.upper()]
    if is_long((width, height)):
        x, y = _stretch(picture.width, width, left, size), _stretch(picture.height, height, top, size)
        return _resize_part(picture, x, y, size, resample)
    # Resizing only the middle would be faster, but Pillow picks the order of its two passes by the whole's shape, and
    # at sharp edges the order is worth up to 25/255.
    return picture.resize((width, height), resample).crop((left, top, left + size, top + size))


def _stretch(side: int, scaled: int, start: int, size: int) -> tuple[float, float]:
    """Where [start, start + size) of `scaled` pixels lies in the unscaled side."""
    step = side / scaled
    return start * step, (start + size) * step


def _resize_part(
    picture: Image.Image,
    across: tuple[float, float],
    down: tuple[float, float],
    size: int,
    resample: Image.Resampling,
) -> Image.Image:
    """One part of a picture too long to be resized as a whole: 1 x 4000 pixels would become a million."""
    x, width = _around(*across, size, picture.width)
    y, height = _around(*down, size, picture.height)
    # Cut out first: Pillow keeps the box in single precision, too coarse far from the origin.
    cut = picture.crop((x, y, x + width, y + height))
    return cut.resize((size, size), resample, (across[0] - x, down[0] - y, across[1] - x, down[1] - y))


def _around(start: float, stop: float, size: int, side: int) -> tuple[int, int]:
    """First pixel and number of pixels that resampling [start, stop) to `size` looks at."""
    reach = _WIDEST_FILTER * max((stop - start) / size, 1) + 1
    first = max(math.floor(start - reach), 0)
    return first, min(math.ceil(stop + reach), side) - first
