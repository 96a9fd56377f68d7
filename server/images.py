"""Bytes of an image file -> pixels, the way timm's evaluation transform does it.

JPEG, PNG, WebP, BMP and the first frame of a GIF, told by their first bytes and read by these five Pillow readers only.
Pixels become RGB by `Image.convert("RGB")`, as in the loaders of the usual data sets: an alpha channel is dropped, not
blended. Beyond that an EXIF orientation is applied, and 16-bit gray is scaled to 8 bits rather than clipped.
"""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from lookup_tables.records import Preprocessing
from server import jpeg, trimming
from server.errors import BadImage, TooLarge, UnsupportedType
from server.fitting import fit, middle, upright
from server.trimming import Trimmed

ACCEPTED = ("image/jpeg", "image/png", "image/webp", "image/bmp", "image/gif")

# curl --data-binary declares the last one; the first bytes tell the format in any case.
_ALIASES = ("image/jpg", "image/x-ms-bmp", "application/octet-stream", "application/x-www-form-urlencoded")
_QUICK_BYTES, _QUICK_MARKERS, _QUICK_SCANS, _QUICK_PIXELS = 8 * 1024, 64, 3, 128 * 128
_SHORTEST_FILE = 12  # bytes, enough to tell the format
_ORIENTATION_TAG = 0x0112
_MOST_TAGS = 1000  # there are a few hundred, and they are sorted
_PASSES = 10  # over as many pixels as an image may have: progressive files have about ten scans
_ROWS = 64  # of 16-bit gray scaled at a time
_FAULTS = (  # what Pillow's readers raise for broken files; Warning for a process that turns warnings into errors
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    SystemError,
    TypeError,
    ValueError,
    Warning,
    struct.error,
    zlib.error,
)


def ignore_pillow_warnings() -> None:
    """Keeps what Pillow remarks about odd files out of the server's output: any client could fill it."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


ignore_pillow_warnings()


@dataclass(frozen=True)
class Limits:
    """What an image may cost: bytes of the file, and pixels that its header announces.

    Decoding takes up to 8 bytes of memory a pixel, of a WebP 16: it may have half as many.
    """

    max_bytes: int = 10_000_000
    max_pixels: int = 50_000_000

    @property
    def max_webp_pixels(self) -> int:
        """Pixels of a WebP."""
        return self.max_pixels // 2


@dataclass(frozen=True)
class _Format:
    magic: re.Pattern[bytes]
    reader: type[ImageFile]
    trim: Callable[[bytes], Trimmed]


_JPEG = b"\xff\xd8\xff"
_FORMATS = (
    _Format(re.compile(_JPEG), JpegImageFile, trimming.jpeg),
    _Format(re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile, trimming.png),
    _Format(re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImageFile, trimming.webp),
    _Format(re.compile(rb"GIF8[79]a"), GifImageFile, trimming.gif),
    _Format(re.compile(rb"BM"), BmpImageFile, lambda body: Trimmed(body, b"")),
)


def check_type(content_type: str | None) -> None:
    """UnsupportedType where the declared type is neither an accepted one nor open (absent or octet-stream)."""
    declared = (content_type or "application/octet-stream").partition(";")[0].strip().lower()
    if declared not in ACCEPTED + _ALIASES:
        raise _unsupported(f"the type {declared[:60]!a}")


def is_quick(body: bytes) -> bool:
    """Whether a file is a small JPEG of few parts, which is not worth a thread (benchmarks/served)."""
    if not body.startswith(_JPEG) or len(body) > _QUICK_BYTES:
        return False
    markers = body.count(b"\xff") - body.count(b"\xff\x00")  # and what looks like one; a part of the file has one each
    if markers > _QUICK_MARKERS or body.count(b"\xff\xda") > _QUICK_SCANS:
        return False
    header = jpeg.header(body)
    return header is not None and header.size[0] * header.size[1] <= _QUICK_PIXELS


Other = Callable[[bytes, jpeg.Header, int], NDArray[np.uint8] | None]
"""Another decoder: a trimmed JPEG, what its header says, its EXIF orientation -> pixels as the network takes them,
(size, size, 3 or, if gray, 1); None for a file that it leaves to the usual one."""


class Picture(NamedTuple):
    """`pixels`, uint8 (height, width, 3 or, if gray, 1): as the network takes them, or on their way there.

    Where they are on their way, `size` is the (width, height) of the whole picture, which they may have fewer than, and
    `orientation` what its EXIF says.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int] | None = None
    orientation: int = 1


def finished(picture: Picture, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """A picture that was read -> as the network takes it, (size, size, 3 or, if gray, 1).

    With Pillow's resizing: pixels.py has the quicker one, for a process that has torch.
    """
    if picture.size is None:
        return picture.pixels
    return middle(picture.pixels, picture.size, picture.orientation, preprocessing)


def read(
    body: bytes, preprocessing: Preprocessing, limits: Limits, *, exact: bool = False, other: Other | None = None
) -> Picture:
    """A file's bytes -> its pixels; those of a JPEG are left as its decoder has them, unless they are to be `exact`.

    An `other` decoder is asked first, about what is within the limits and would else be read the quick way.

    Raises UnsupportedType for another format, TooLarge past `limits` (pixels by the header, before any is decoded),
    BadImage for an empty, truncated or corrupt file.
    """
    _check_bytes(body, limits)
    kind = _format(body)
    try:
        found = _load(kind, body, limits, None if exact else preprocessing, other)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise TooLarge("the image has too many pixels", max_pixels=limits.max_pixels) from error
    except _FAULTS as error:
        raise BadImage(f"the {kind.reader.format} image is truncated or corrupt") from error
    if isinstance(found, Picture):
        return found
    small = fit(found, preprocessing)
    return Picture(np.array(small if small.mode == "RGB" else small.convert("RGB")))


def _check_bytes(body: bytes, limits: Limits) -> None:
    if len(body) > limits.max_bytes:
        detail = f"the image has {len(body)} bytes, more than {limits.max_bytes}"
        raise TooLarge(detail, bytes=len(body), max_bytes=limits.max_bytes)
    if len(body) < _SHORTEST_FILE:
        raise BadImage("the body is empty" if not body else f"{len(body)} bytes are too few for an image")


def _format(body: bytes) -> _Format:
    for kind in _FORMATS:
        if kind.magic.match(body):
            return kind
    raise _unsupported("the format of the body")


def _load(
    kind: _Format, body: bytes, limits: Limits, quickly: Preprocessing | None, other: Other | None
) -> Image.Image | Picture:
    if kind.reader is WebPImageFile:
        _check_pixels(_webp_size(body), limits.max_webp_pixels, "a WebP may have; send a smaller picture, or a JPEG")
    trimmed = kind.trim(body)
    if quickly and kind.reader is JpegImageFile:
        found = _quickly(trimmed, limits, quickly, other)
        if found is not None:
            return found
    picture = kind.reader(io.BytesIO(trimmed.body))
    _check_size(picture.size, trimmed.scans, limits)
    if any(tile[0] == "bmp_rle" for tile in picture.tile):
        # Pillow decodes these in Python, a pixel at a time and with the interpreter's lock held.
        raise _unsupported("run-length encoding in a BMP file")
    picture.load()
    plain = _plain(picture)
    del picture  # before another copy is made
    return upright(plain, _orientation(trimmed.exif))


def _quickly(trimmed: Trimmed, limits: Limits, preprocessing: Preprocessing, other: Other | None) -> Picture | None:
    """A JPEG as its decoder leaves it; None where that is not the way, or Pillow's reader is to say what is wrong."""
    header = jpeg.header(trimmed.body)
    if header is None or not jpeg.is_for(header.size, preprocessing):
        return None
    _check_size(header.size, trimmed.scans, limits)
    orientation = _orientation(trimmed.exif)
    ready = other(trimmed.body, header, orientation) if other else None
    if ready is not None:
        return Picture(ready)
    pixels = jpeg.read(trimmed.body, header.colours, jpeg.least(preprocessing))
    return None if pixels is None else Picture(pixels, header.size, orientation)


def _check_size(size: tuple[int, int], scans: int, limits: Limits) -> None:
    """Raises TooLarge for pixels, or for a JPEG's passes over them, that would take too long."""
    _check_pixels(size, limits.max_pixels, "an image may have; send a smaller picture")
    width, height = size
    if width * height * scans > _PASSES * limits.max_pixels:
        detail = f"the JPEG image has {scans} scans of {width} x {height} pixels; send it with fewer, or smaller"
        raise TooLarge(detail, width=width, height=height, scans=scans)


def _check_pixels(size: tuple[int, int], most: int, remedy: str) -> None:
    width, height = size
    if width * height > most:
        detail = f"the image has {width} x {height} pixels, more than the {most} in all that {remedy}"
        raise TooLarge(detail, width=width, height=height, max_pixels=most)


def _webp_size(body: bytes) -> tuple[int, int]:
    """(width, height) by the header, read here because Pillow's reader allocates the canvas on opening (RFC 9649)."""
    chunk, header = body[12:16], body[20:30]
    if chunk == b"VP8X":
        return int.from_bytes(header[4:7], "little") + 1, int.from_bytes(header[7:10], "little") + 1
    if chunk == b"VP8L":
        bits = int.from_bytes(header[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(header[6:8], "little") & 0x3FFF, int.from_bytes(header[8:10], "little") & 0x3FFF


def _orientation(exif: bytes) -> int:
    """The orientation tag of an EXIF block's first directory; 1, upright, where there is none to be read."""
    tiff = exif.removeprefix(b"Exif\x00\x00")
    order = ">" if tiff.startswith(b"MM") else "<"
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for offset in range(start + 2, start + 2 + 12 * min(count, _MOST_TAGS), 12):
            tag, value = struct.unpack_from(f"{order}H6xH", tiff, offset)
            if tag == _ORIENTATION_TAG:
                return int(value)
    except struct.error:
        return 1
    return 1


def _plain(picture: Image.Image) -> Image.Image:
    """Gray or RGB, 8 bits each. Gray stays so until it is small: as RGB it has four times the bytes, resized alike."""
    picture.info.pop("transparency", None)  # convert would carry it over, which fails for some files
    if picture.mode.startswith("I"):
        return _eight_bit(picture)
    return picture if picture.mode in {"RGB", "L"} else picture.convert("L" if picture.mode in {"1", "LA"} else "RGB")


def _eight_bit(picture: Image.Image) -> Image.Image:
    """16-bit gray -> 8-bit, some rows at a time."""
    gray = Image.new("L", picture.size)
    for top in range(0, picture.height, _ROWS):
        rows = picture.crop((0, top, picture.width, min(top + _ROWS, picture.height)))
        scaled = (np.asarray(rows).astype(np.uint32) + 128) // 257
        gray.paste(Image.fromarray(scaled.astype(np.uint8)), (0, top))
    return gray


def _unsupported(what: str) -> UnsupportedType:
    return UnsupportedType(f"{what} is not accepted; send one of {', '.join(ACCEPTED)}", accepted=list(ACCEPTED))
