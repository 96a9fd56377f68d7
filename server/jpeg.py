"""JPEG, the quick way: libjpeg-turbo makes a picture smaller as it decodes; fitting.py or pixels.py does the rest."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from simplejpeg import decode_jpeg, decode_jpeg_header, encode_jpeg

from lookup_tables.records import Preprocessing
from server.fitting import is_long, needed

SPARE = 2
"""Times the pixels needed that the decoder leaves at least: at once, the mean difference is seven times as large."""
QUICK = ("bilinear", "bicubic")
"""The filters that PyTorch has for uint8."""
_COLOURS = {"YCbCr": "RGB", "RGB": "RGB", "Gray": "GRAY"}


def is_for(size: tuple[int, int], preprocessing: Preprocessing) -> bool:
    """Whether a picture of this (width, height) may be read so: not where it is long, or for another filter."""
    return preprocessing.interpolation in QUICK and not is_long(size)


def least(preprocessing: Preprocessing) -> int:
    """Pixels that both sides are to keep."""
    return SPARE * needed(preprocessing)


class Header(NamedTuple):
    """A picture's (width, height), and the colours it is to be decoded to, by the decoder's name."""

    size: tuple[int, int]
    colours: str


def header(body: bytes) -> Header | None:
    """What a file says of itself; None for other colours, and for whatever is not sound."""
    try:
        height, width, colours, _ = decode_jpeg_header(body)
        return Header((width, height), _COLOURS[colours])
    except (ValueError, KeyError):
        return None


def read(body: bytes, colours: str, least: int) -> NDArray[np.uint8] | None:
    """A file's bytes -> (height, width, 3 or, if gray, 1), made smaller while both sides keep `least` pixels.

    None for whatever is not sound: what that is Pillow's reader is to say.
    """
    try:
        pixels: NDArray[np.uint8] = decode_jpeg(body, colours, min_height=least, min_width=least)
    except ValueError:
        return None
    return pixels


def sample() -> bytes:
    """A file of 500 x 375 pixels to time decoders with: patches and some grain, 80 kB, as photographs have."""
    generator = np.random.default_rng(0)
    patches = generator.integers(30, 225, (15, 20, 3)).repeat(25, 0).repeat(25, 1)
    grain = generator.integers(-6, 7, patches.shape)
    file: bytes = encode_jpeg((patches + grain).astype(np.uint8), quality=90, colorsubsampling="420")
    return file
