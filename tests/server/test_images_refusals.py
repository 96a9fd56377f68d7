"""What is refused before, while and after Pillow reads it; the pixels are in test_images.py."""

import io
import struct
import tracemalloc
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lookup_tables.table import Preprocessing
from server.errors import BadImage, ServeError, TooLarge, UnsupportedType
from server.images import ACCEPTED, Limits, check_type, ignore_pillow_warnings
from server.pixels import decode

SMALL = Preprocessing(size=8, crop=1.0, interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
LIMITS = Limits()


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "body",
    [
        b"just some text, no image",
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b"<!doctype html><html></html>",
        b"PK\x03\x04" + bytes(40),
        b"%PDF-1.7\n" + bytes(40),
        b"\x00\x00\x00\x1cftypheic" + bytes(40),
        b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(40),
        bytes(100),
        encode(noise(8, 8), "TIFF"),
        encode(noise(8, 8), "PPM"),
        encode(noise(8, 8), "ICO"),
        encode(noise(8, 8), "TGA"),
    ],
    ids=lambda body: ascii(body[:8]),
)
def test_other_formats_are_unsupported_and_the_accepted_ones_are_named(body: bytes) -> None:
    with pytest.raises(UnsupportedType) as refusal:
        decode(body, SMALL, LIMITS)
    assert refusal.value.extra == {"accepted": list(ACCEPTED)}
    assert all(accepted in refusal.value.detail for accepted in ACCEPTED)


def test_run_length_encoded_bmp_is_unsupported() -> None:
    body = bytearray(encode(noise(8, 8).convert("P"), "BMP"))
    body[30:34] = struct.pack("<I", 1)
    with pytest.raises(UnsupportedType, match="run-length"):
        decode(bytes(body), SMALL, LIMITS)


def test_an_empty_body_says_so() -> None:
    with pytest.raises(BadImage, match="empty"):
        decode(b"", SMALL, LIMITS)


VALID = {
    "jpeg": encode(noise(30, 20), "JPEG"),
    "progressive": encode(noise(30, 20), "JPEG", progressive=True),
    "cmyk": encode(noise(30, 20).convert("CMYK"), "JPEG"),
    "png": encode(noise(30, 20), "PNG"),
    "palette": encode(noise(30, 20).convert("P"), "PNG", transparency=bytes(range(50))),
    "apng": encode(noise(30, 20), "PNG", save_all=True, append_images=[noise(30, 20).rotate(180)]),
    "gray16": encode(Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 109), "PNG"),
    "webp": encode(noise(30, 20), "WEBP"),
    "lossless": encode(noise(30, 20).convert("RGBA"), "WEBP", lossless=True),
    "animation": encode(noise(30, 20), "WEBP", save_all=True, append_images=[noise(30, 20).rotate(180)]),
    "gif": encode(noise(30, 20), "GIF"),
    "bmp": encode(noise(30, 20), "BMP"),
    "bmp8": encode(noise(30, 20).convert("P"), "BMP"),
}


@pytest.mark.parametrize("name", VALID)
@pytest.mark.parametrize("part", [0.02, 0.1, 0.3, 0.9])
def test_a_truncated_file_is_a_bad_image(name: str, part: float) -> None:
    body = VALID[name]
    later = {"apng": b"fdAT", "animation": b"ANMF"}.get(name)  # later frames are never looked at
    end = body.rindex(later) if later else len(body)
    with pytest.raises(BadImage):
        decode(body[: int(end * part)], SMALL, LIMITS)


@pytest.mark.parametrize("name", VALID)
def test_a_corrupt_header_is_a_bad_image(name: str) -> None:
    with pytest.raises(BadImage) as refusal:
        decode(VALID[name][:16] + bytes(200), SMALL, LIMITS)
    assert "corrupt" in refusal.value.detail


edits = st.lists(
    st.tuples(st.integers(0, 200) | st.integers(0, 4000), st.integers(0, 8), st.binary(max_size=8)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(VALID)), edits, st.booleans())
def test_whatever_is_done_to_a_file_it_decodes_or_is_refused(
    name: str, edits: list[tuple[int, int, bytes]], sealed: bool
) -> None:
    body = VALID[name]
    for position, removed, inserted in edits:
        body = body[:position] + inserted + body[position + removed :]
    try:
        pixels = decode(reseal(body) if sealed else body, SMALL, Limits(max_pixels=1_000_000))
    except ServeError as refusal:
        if refusal.status not in (400, 413, 415):
            raise
    else:
        assert pixels.shape == (3, 8, 8)


def reseal(body: bytes) -> bytes:
    """A PNG with every checksum right again, so that damage inside the chunks gets past them."""
    sealed, at = bytearray(body), 8
    while body.startswith(b"\x89PNG") and at + 12 <= len(body):
        end = at + 8 + int.from_bytes(body[at : at + 4])
        if end + 4 <= len(body):
            sealed[end : end + 4] = zlib.crc32(body[at + 4 : end]).to_bytes(4)
        at = end + 4
    return bytes(sealed)


def test_too_many_bytes_are_refused_unread() -> None:
    with pytest.raises(TooLarge) as refusal:
        decode(b"no image" * 2, SMALL, Limits(max_bytes=15))
    assert refusal.value.extra == {"bytes": 16, "max_bytes": 15}


@pytest.mark.parametrize(
    ("file_format", "share", "remedy"),
    [
        *((kind, 1, "an image may have; send a smaller picture") for kind in ("JPEG", "PNG", "GIF", "BMP")),
        ("WEBP", 2, "a WebP may have; send a smaller picture, or a JPEG"),
    ],
)
def test_as_many_pixels_and_bytes_as_allowed_are_taken_and_one_more_is_not(
    file_format: str, share: int, remedy: str
) -> None:
    body = encode(noise(20, 10), file_format)
    assert decode(body, SMALL, Limits(max_bytes=len(body), max_pixels=200 * share)).shape == (3, 8, 8)
    with pytest.raises(TooLarge):
        decode(body, SMALL, Limits(max_bytes=len(body) - 1))
    with pytest.raises(TooLarge, match=remedy) as refusal:
        decode(body, SMALL, Limits(max_pixels=200 * share - 1))
    assert refusal.value.extra == {"width": 20, "height": 10, "max_pixels": 199}


def patched(body: bytes, at: int, value: bytes) -> bytes:
    return reseal(body[:at] + value + body[at + len(value) :])


HUGE = {
    "jpeg": patched(VALID["jpeg"], VALID["jpeg"].index(b"\xff\xc0") + 5, struct.pack(">HH", 65500, 65500)),
    "png": patched(VALID["png"], 16, struct.pack(">II", 100_000, 100_000)),
    "png at its most": patched(VALID["png"], 16, struct.pack(">II", 2**31 - 1, 2**31 - 1)),
    "gif": patched(VALID["gif"], 6, struct.pack("<HH", 65535, 65535)),
    "gif frame": patched(VALID["gif"], VALID["gif"].index(b",\x00\x00\x00\x00") + 5, struct.pack("<HH", 65535, 65535)),
    "bmp": patched(VALID["bmp"], 18, struct.pack("<ii", 100_000, 100_000)),
    "bmp upside down": patched(VALID["bmp"], 18, struct.pack("<ii", 100_000, -100_000)),
    "webp": patched(VALID["webp"], 26, struct.pack("<HH", 16383, 16383)),
    "webp lossless": b"RIFF\x40\x00\x00\x00WEBPVP8L\x40\x00\x00\x00\x2f" + b"\xff\xff\xff\x0f" + bytes(60),
    "webp canvas": patched(VALID["animation"], 24, b"\xff\xff\xff\xff\x00\x00"),
}


@pytest.mark.parametrize("name", HUGE)
def test_a_header_that_announces_too_many_pixels_is_refused_by_the_header(name: str) -> None:
    with pytest.raises(TooLarge, match="pixels"):
        decode(HUGE[name], SMALL, LIMITS)


@pytest.mark.parametrize(
    "header",
    [
        b"VP8 " + bytes(10) + struct.pack("<HH", 9000, 8000),
        b"VP8L" + bytes(4) + b"\x2f" + struct.pack("<I", 8999 | 7999 << 14),
        b"VP8X" + bytes(8) + (8999).to_bytes(3, "little") + (7999).to_bytes(3, "little"),
    ],
    ids=["lossy", "lossless", "extended"],
)
def test_a_webp_is_measured_before_pillow_makes_its_canvas(header: bytes) -> None:
    with pytest.raises(TooLarge) as refusal:
        decode(b"RIFF\x40\x00\x00\x00WEBP" + header + bytes(60), SMALL, LIMITS)
    assert refusal.value.extra == {"width": 9000, "height": 8000, "max_pixels": LIMITS.max_webp_pixels}


@pytest.mark.parametrize("name", ["jpeg", "png", "gif", "bmp"])
def test_a_picture_without_pixels_is_a_bad_image(name: str) -> None:
    at = {"jpeg": VALID["jpeg"].index(b"\xff\xc0") + 5, "png": 16, "gif": 6, "bmp": 18}[name]
    body = patched(VALID[name], at, bytes(2 if name in ("jpeg", "gif") else 4))
    if name == "gif":
        body = patched(body, body.index(b",\x00\x00\x00\x00") + 5, bytes(4))
    with pytest.raises(BadImage):
        decode(body, SMALL, LIMITS)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + zlib.crc32(kind + content).to_bytes(4)


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_metadata_that_swells_on_reading_is_not_read(kind: bytes) -> None:
    swelling = chunk(kind, b"key\x00\x00" + zlib.compress(bytes(20_000_000)))
    body = VALID["png"][:33] + swelling + VALID["png"][33:]
    assert peak_of_decoding(body) < 1_000_000


def peak_of_decoding(body: bytes) -> int:
    """Bytes that Python allocates at most while this file is decoded."""
    tracemalloc.start()
    assert decode(body, SMALL, LIMITS).shape == (3, 8, 8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_exif_tags_that_overlap_are_not_copied() -> None:
    entries = b"".join(struct.pack("<HHII", tag, 7, 60_000, 8) for tag in range(4000))
    segment = b"Exif\x00\x00II*\x00" + struct.pack("<IH", 8, 4000) + entries.ljust(65_000, b"\x00")
    app1 = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
    jpeg = VALID["jpeg"]
    body = jpeg[:2] + app1 + jpeg[jpeg.index(b"\xff\xdb") :]  # without JFIF's resolution, which Pillow then looks for
    assert peak_of_decoding(body) < 1_000_000


@pytest.mark.parametrize(
    "content_type",
    [*ACCEPTED, "image/jpg", "IMAGE/PNG", "image/jpeg; quality=1", " image/gif ", "application/octet-stream", "", None],
)
def test_accepted_types(content_type: str | None) -> None:
    check_type(content_type)


@pytest.mark.parametrize(
    "content_type", ["text/html", "image/svg+xml", "image/tiff", "image/*", "image", "application/json", "\x1b" * 999]
)
def test_other_types_are_unsupported_whatever_the_body(content_type: str) -> None:
    with pytest.raises(UnsupportedType) as refusal:
        check_type(content_type)
    assert refusal.value.extra == {"accepted": list(ACCEPTED)}
    assert refusal.value.detail.isprintable()
    assert len(refusal.value.detail) < 400


def test_pillows_warnings_stay_out_of_the_output() -> None:
    frame = VALID["gif"].index(b",\x00\x00\x00\x00") + 5
    body = patched(VALID["gif"], frame, struct.pack("<HH", 10_000, 10_000))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with pytest.raises(TooLarge):
            decode(body, SMALL, LIMITS)
        assert heard
        heard.clear()
        ignore_pillow_warnings()
        with pytest.raises(TooLarge):
            decode(body, SMALL, LIMITS)
        assert not heard
