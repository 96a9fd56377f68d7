"""A picture of any size to what a network takes: the shorter side to size / crop, then the middle size x size.

Here with Pillow's resizing, which is what timm does; pixels.py has the quicker way.
"""

import math

from PIL import Image

from lookup_tables.records import Preprocessing

LONGEST = 4
"""Times the shorter side that a picture may be long to be resized as a whole."""
_WIDEST_FILTER = 3  # pixels either side, Lanczos


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
