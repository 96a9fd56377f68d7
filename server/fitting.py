"""A picture of any size to what a network takes: the shorter side to size / crop, then the middle size x size.

Here with Pillow's resizing, which is what timm does; pixels.py has the quicker way.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookup_tables.records import Preprocessing

LONGEST = 4
"""Times the shorter side that a picture may be long to be resized as a whole."""
_WIDEST_FILTER = 3  # pixels either side, Lanczos
_TURNS = {  # EXIF 2.32, table 5: orientation -> what brings the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
DOWN, ACROSS = 1, 2  # axes of (C, height, width)
TURNS: dict[int, tuple[bool, tuple[int, ...]]] = {  # the same: whether rows become columns, then the axes flipped
    2: (False, (ACROSS,)),
    3: (False, (DOWN, ACROSS)),
    4: (False, (DOWN,)),
    5: (True, ()),
    6: (True, (ACROSS,)),
    7: (True, (DOWN, ACROSS)),
    8: (True, (DOWN,)),
}
UNTURNED: tuple[bool, tuple[int, ...]] = (False, ())


def needed(preprocessing: Preprocessing) -> int:
    """Pixels of the shorter side before the middle is cut out."""
    return math.floor(preprocessing.size / preprocessing.crop)


def scaled(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """What a picture of this size is resized to, with timm's and torchvision's rounding."""
    width, height = (int(needed(preprocessing) * side / min(size)) for side in size)
    return width, height


def is_long(size: tuple[int, int]) -> bool:
    """Whether so much of a picture is cut away that only a part is resized."""
    return max(size) > LONGEST * min(size)


def fit(picture: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """The shorter side to floor(size / crop), then the middle size x size, with timm's and torchvision's rounding."""
    size = preprocessing.size
    width, height = scaled(picture.size, preprocessing)
    resample = Image.Resampling[preprocessing.interpolation.upper()]
    left, top = _start((width, height), size)
    if is_long((width, height)):
        x, y = _stretch(picture.width, width, left, size), _stretch(picture.height, height, top, size)
        return _resize_part(picture, x, y, size, resample)
    # Resizing only the middle would be faster, but Pillow picks the order of its two passes by the whole's shape, and
    # at sharp edges the order is worth up to 25/255.
    return picture.resize((width, height), resample).crop((left, top, left + size, top + size))


def covered(size: tuple[int, int], pixels: tuple[int, int]) -> tuple[float, float]:
    """How many of the (width, height) pixels that a decoder left of a picture of this size belong to it.

    It makes pictures smaller by eighths, and rounds up.
    """
    width, height = (whole * (8 * left // whole) / 8 for whole, left in zip(size, pixels, strict=True))
    return width, height


def middle(
    pixels: NDArray[np.uint8], size: tuple[int, int], orientation: int, preprocessing: Preprocessing
) -> NDArray[np.uint8]:
    """What a decoder left of a picture of this (width, height), as stored, (height, width, 3 or 1) -> as `fit`.

    Only what is wanted is resized, and always across before down, as PyTorch does it (see `fit`).
    """
    side, (width, height) = preprocessing.size, scaled(size, preprocessing)
    turned, flips = TURNS.get(orientation, UNTURNED)
    seen = (height, width) if turned else (width, height)
    left, top = _start(seen, side)
    left = seen[0] - side - left if ACROSS in flips else left
    top = seen[1] - side - top if DOWN in flips else top
    left, top = (top, left) if turned else (left, top)
    whole = covered(size, (pixels.shape[1], pixels.shape[0]))
    x, y = (of / to for of, to in zip(whole, (width, height), strict=True))
    first, rows = _around(top * y, (top + side) * y, side, len(pixels))
    wanted = pixels[first : first + rows]
    picture = Image.fromarray(wanted if pixels.shape[2] == 3 else wanted[:, :, 0])
    resample = Image.Resampling[preprocessing.interpolation.upper()]
    narrow = picture.resize((side, rows), resample, (left * x, 0, (left + side) * x, rows))
    small = narrow.resize((side, side), resample, (0, top * y - first, side, (top + side) * y - first))
    return np.atleast_3d(np.asarray(upright(small, orientation)))


def upright(picture: Image.Image, orientation: int) -> Image.Image:
    """A picture as stored -> as it is to be seen, by its EXIF orientation."""
    turn = _TURNS.get(orientation)
    return picture if turn is None else picture.transpose(turn)


def _start(whole: tuple[int, int], size: int) -> tuple[int, int]:
    """Left and top of the size x size in the middle, with torchvision's rounding."""
    left, top = (round((side - size) / 2) for side in whole)
    return left, top


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
