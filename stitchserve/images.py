"""Whatever holds an image, as the bytes of a file that the server reads. Nothing is lost on the way."""

import io
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

ImageLike: TypeAlias = str | PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[Any]
"""A path, the bytes of a file, a Pillow image, or an array of uint8: (H, W) grey, (H, W, 3) RGB, (H, W, 4) RGBA."""

_IN_PNG = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}
_FAST = 1  # zlib's level: a picture is sent once


def encoded(image: ImageLike) -> bytes:
    """The bytes to send: files as they are, pictures in memory as PNG.

    A Pillow image is turned as its EXIF orientation says, as the server does with a file. Raises OSError for a path
    that cannot be read, TypeError and ValueError for what is no image.
    """
    if isinstance(image, str | PathLike):
        return Path(image).read_bytes()
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, Image.Image):
        return _png(ImageOps.exif_transpose(image))
    if isinstance(image, np.ndarray):
        return _png(_picture(image))
    raise TypeError(f"image: {type(image).__name__} is none; give a path, bytes, a Pillow image or an array")


def _picture(array: NDArray[Any]) -> Image.Image:
    if array.dtype != np.uint8:
        raise ValueError(f"image: an array of {array.dtype}; give uint8, 0 to 255")
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in {3, 4})):
        raise ValueError(f"image: an array of shape {array.shape}; give (H, W), (H, W, 3) or (H, W, 4)")
    return Image.fromarray(np.ascontiguousarray(array))


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    (picture if picture.mode in _IN_PNG else picture.convert("RGB")).save(file, "PNG", compress_level=_FAST)
    return file.getvalue()
