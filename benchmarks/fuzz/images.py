"""Fuzz target: the decoding of images of all five formats."""

import io
import random
import zlib
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.fuzz.target import Target
from lookup_tables.table import Preprocessing
from server.errors import BadImage, TooLarge, UnsupportedType
from server.images import Limits
from server.pixels import decode

SMALL = Preprocessing(size=8, crop=1.0, interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
LIMITS = Limits(max_bytes=1_000_000, max_pixels=1_000_000)
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
DEEP = Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 109)
PALETTE = NOISE.convert("P")


def file(image: Image.Image, file_format: str, **options: Any) -> bytes:
    """An image's file."""
    content = io.BytesIO()
    image.save(content, file_format, **options)
    return content.getvalue()


def seeds() -> tuple[bytes, ...]:
    """Small files of every kind that the five readers tell apart."""
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    metadata = {"exif": exif, "icc_profile": bytes(300), "xmp": bytes(100)}
    frames = {"save_all": True, "append_images": [NOISE.rotate(180), NOISE.rotate(90)]}
    gray, bits, alpha, cmyk = (NOISE.convert(mode) for mode in ("L", "1", "RGBA", "CMYK"))
    return (
        *(file(NOISE, "JPEG", **metadata), file(NOISE, "JPEG", progressive=True), file(gray, "JPEG")),
        *(file(cmyk, "JPEG"), file(NOISE, "JPEG", restart_marker_blocks=1, subsampling=0)),
        *(file(NOISE, "PNG", **metadata), file(PALETTE, "PNG", transparency=bytes(range(50))), file(DEEP, "PNG")),
        *(file(bits, "PNG"), file(NOISE.convert("LA"), "PNG"), file(alpha, "PNG"), file(NOISE, "PNG", **frames)),
        *(file(NOISE, "WEBP", **metadata), file(NOISE, "WEBP", **frames), file(alpha, "WEBP", alpha_quality=50)),
        *(file(alpha, "WEBP", lossless=True), file(alpha, "WEBP", **frames)),
        *(file(PALETTE, "GIF", comment=b"text"), file(NOISE, "GIF", **frames), file(PALETTE, "GIF", transparency=3)),
        *(file(NOISE, "BMP"), file(PALETTE, "BMP"), file(bits, "BMP"), file(alpha, "BMP")),
    )


def sealed(body: bytes, chance: random.Random) -> bytes:
    """Mostly, a PNG with every checksum right again, so that damage inside the chunks gets past them."""
    if not body.startswith(b"\x89PNG") or chance.random() < 0.2:
        return body
    mended, at = bytearray(body), 8
    while at + 12 <= len(body):
        end = at + 8 + int.from_bytes(body[at : at + 4])
        if end + 4 <= len(body):
            mended[end : end + 4] = zlib.crc32(body[at + 4 : end]).to_bytes(4)
        at = end + 4
    return bytes(mended)


TARGET = Target(lambda body: decode(body, SMALL, LIMITS), (BadImage, TooLarge, UnsupportedType), seeds(), sealed)
