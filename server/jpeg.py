"""JPEG, the quick way: libjpeg-turbo makes the picture smaller while it decodes, PyTorch does the rest."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from simplejpeg import decode_jpeg, decode_jpeg_header

from lookup_tables.table import Preprocessing
from server.fitting import QUICK, is_long, middle, needed, resized

SPARE = 2
"""Times the pixels needed that the decoder leaves at least: at once, the mean difference is seven times as large."""
_COLOURS = {"YCbCr": "RGB", "RGB": "RGB", "Gray": "GRAY"}


def decode(
    body: bytes, size: tuple[int, int], turn: Image.Transpose | None, preprocessing: Preprocessing
) -> torch.Tensor | None:
    """A file's bytes -> uint8 (3, size, size), after this `turn`; `size` is what its header says, in bounds already.

    None where this is not the way: for long pictures, other filters than QUICK, and where `read` gives none.
    """
    if is_long(size) or preprocessing.interpolation not in QUICK:
        return None
    pixels = read(body, SPARE * needed(preprocessing))
    if pixels is None:
        return None
    small = resized(torch.from_numpy(pixels).permute(2, 0, 1), size, preprocessing)
    if turn is not None:
        planes = [np.asarray(Image.fromarray(plane).transpose(turn)) for plane in small.contiguous().numpy()]
        small = torch.from_numpy(np.stack(planes))
    return middle(small, preprocessing.size).expand(3, -1, -1).contiguous()


def read(body: bytes, least: int) -> NDArray[np.uint8] | None:
    """A file's bytes -> (height, width, 3 or, if gray, 1), made smaller while both sides keep `least` pixels.

    None for other colours, and for whatever is not sound: what that is Pillow's reader is to say.
    """
    try:
        colours = _COLOURS[decode_jpeg_header(body)[2]]
        pixels: NDArray[np.uint8] = decode_jpeg(body, colours, min_height=least, min_width=least)
    except (ValueError, KeyError):
        return None
    return pixels
