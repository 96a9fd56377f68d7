"""What readers are spared, and how many parts a file may have."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lookup_tables.table import Preprocessing
from server import trimming
from server.errors import BadImage, TooLarge
from server.images import Limits
from server.pixels import decode
from server.trimming import MOST_JUNK, MOST_PARTS, MOST_SCANS, MOST_TABLES

SMALL = Preprocessing(size=8, crop=1.0, interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def pixels(body: bytes) -> torch.Tensor:
    return decode(body, SMALL, Limits(), exact=True)


def as_pillow_reads(body: bytes) -> torch.Tensor:
    """The same, from the whole file."""
    with Image.open(io.BytesIO(body)) as image:
        fitted = image.convert("RGB").resize((12, 8), Image.Resampling.BILINEAR).crop((2, 0, 10, 8))
    return torch.from_numpy(np.array(fitted)).permute(2, 0, 1)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + zlib.crc32(kind + content).to_bytes(4)


def riff(content: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(content) + 4) + b"WEBP" + content


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
JPEG, PNG, GIF, WEBP = (encode(NOISE, file_format) for file_format in ("JPEG", "PNG", "GIF", "WEBP"))
PROGRESSIVE = encode(NOISE, "JPEG", progressive=True)
GIF_HEAD = 13 + (3 << (GIF[10] & 7) + 1)
EXTENDED = b"VP8X" + struct.pack("<IB3x", 10, 0x08) + bytes([29, 0, 0, 19, 0, 0])  # says that there is an EXIF block

# Each puts `count` parts into a file that has fewer than 20 of its own.
PARTS: dict[str, Callable[[int], bytes]] = {
    "jpeg comments": lambda count: JPEG[:2] + segment(0xFE, b"") * count + JPEG[2:],
    "jpeg markers": lambda count: JPEG[:2] + b"\xff\xd0" * count + JPEG[2:],
    "png texts": lambda count: PNG[:33] + chunk(b"tEXt", b"k\x00") * count + PNG[33:],
    "png pixels": lambda count: PNG[:33] + chunk(b"IDAT") * count + PNG[33:],
    "png texts at the end": lambda count: PNG[:-12] + chunk(b"tEXt") * count + PNG[-12:],
    "gif extensions": lambda count: GIF[:GIF_HEAD] + b"!\x01\x00" * count + GIF[GIF_HEAD:],
    "gif blocks": lambda count: GIF[:GIF_HEAD] + b"!\xfe" + b"\x01a" * count + b"\x00" + GIF[GIF_HEAD:],
    "webp chunks": lambda count: riff(EXTENDED + (b"abcd" + bytes(4)) * count + WEBP[12:]),
    "webp chunks at the end": lambda count: riff(EXTENDED + WEBP[12:] + (b"abcd" + bytes(4)) * count),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_file_may_have_so_many_parts_and_no_more(name: str) -> None:
    assert torch.equal(pixels(PARTS[name](MOST_PARTS - 20)), pixels(PARTS[name](0)))
    with pytest.raises(TooLarge, match=f"more than {MOST_PARTS}"):
        pixels(PARTS[name](MOST_PARTS + 1))


def test_a_jpeg_may_have_so_many_scans_and_no_more() -> None:
    scans = PROGRESSIVE.count(b"\xff\xda")
    empty = segment(0xDA, b"\x01\x01\x00\x00\x00\x00")
    assert pixels(PROGRESSIVE[:-2] + empty * (MOST_SCANS - scans) + PROGRESSIVE[-2:]).shape == (3, 8, 8)
    with pytest.raises(TooLarge, match="scans"):
        pixels(PROGRESSIVE[:-2] + empty * (MOST_SCANS - scans + 1) + PROGRESSIVE[-2:])
    with Image.open(io.BytesIO(PROGRESSIVE)) as image:
        limits = Limits(max_pixels=image.width * image.height)
    for exact in (True, False):
        assert decode(PROGRESSIVE, SMALL, limits, exact=exact).shape == (3, 8, 8), (
            "a large one may have as many as usual"
        )
        with pytest.raises(TooLarge, match="11 scans"):
            decode(PROGRESSIVE[:-2] + empty * (11 - scans) + PROGRESSIVE[-2:], SMALL, limits, exact=exact)


def test_one_scan_of_all_components_is_not_looked_over_for_others_as_there_may_be_none() -> None:
    scan = JPEG[JPEG.index(b"\xff\xda") : -2]
    behind = JPEG + scan * MOST_SCANS  # not of the picture, which has ended
    assert torch.equal(pixels(behind), pixels(JPEG))
    for exact in (True, False):
        with pytest.raises(BadImage):
            decode(JPEG[:-2] + scan + JPEG[-2:], SMALL, Limits(), exact=exact)
    apart = JPEG.replace(scan[:5], scan[:4] + b"\x01")  # as if it had one component of three
    assert trimming.jpeg(apart + scan * 3).scans == 3 + apart.count(b"\xff\xda")
    with pytest.raises(TooLarge, match="scans"):
        pixels(apart + scan * MOST_SCANS)


@pytest.mark.parametrize("marker", [0xDC, 0xDB, 0xC4, 0xDD])
@pytest.mark.parametrize("length", [0, 1])
def test_a_segment_too_short_for_its_length_hides_no_other_from_the_decoder(marker: int, length: int) -> None:
    """It would take the next one for its content: a frame's header, and then the scans are not that frame's."""
    frame = JPEG[JPEG.index(b"\xff\xc0") :][:19]
    skipped = segment(0xDB, bytes(0xFF - 2 - (len(frame) - 1) - 4))  # so that 255 bytes end with it
    many = PROGRESSIVE[:-2] + segment(0xDA, b"\x01\x01\x00\x00\x00\x00") * MOST_SCANS + PROGRESSIVE[-2:]
    short = bytes([0xFF, marker, 0, length])
    for exact in (True, False):
        with pytest.raises((TooLarge, BadImage)):
            decode(many[:20] + short + frame + skipped + many[20:], SMALL, Limits(), exact=exact)


@pytest.mark.parametrize("marker", [0xDB, 0xC4, 0xC0])
def test_a_jpegs_tables_are_bounded(marker: int) -> None:
    half = segment(marker, bytes(MOST_TABLES // 2))
    assert len(trimming.jpeg(JPEG[:2] + half + JPEG[2:]).body) > len(half)
    with pytest.raises(TooLarge, match="tables"):
        pixels(JPEG[:2] + half * 2 + JPEG[2:])


@pytest.mark.parametrize(("body", "at", "junk"), [(JPEG, 20, b"\xff"), (JPEG, 20, b"\x00"), (GIF, GIF_HEAD, b"\x00")])
def test_junk_between_parts_is_passed_over_up_to_a_bound(body: bytes, at: int, junk: bytes) -> None:
    assert torch.equal(pixels(body[:at] + junk * (MOST_JUNK - 10) + body[at:]), pixels(body))
    with pytest.raises(BadImage):
        pixels(body[:at] + junk * (MOST_JUNK + 10) + body[at:])


PHOTOGRAPH = (
    *(segment(0xE1, b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x00" + bytes(60_000)),),
    *(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\x00<x:xmpmeta/>"),),
    *(segment(0xE2, b"ICC_PROFILE\x00" + bytes([part, 9]) + bytes(65_000)) for part in range(1, 10)),
    *(segment(0xE2, b"MPF\x00MM\x00*" + bytes(80)),),
    *(segment(0xED, b"Photoshop 3.0\x00" + b"8BIM\x04\x04" + bytes(60)),),
    *(segment(0xE1, b"http://ns.adobe.com/xmp/extension/\x00" + bytes(65_000)) for _ in range(40)),
    *(segment(0xFE, b"a comment"),),
)


def test_a_photographs_metadata_is_left_out() -> None:
    body = JPEG[:2] + b"".join(PHOTOGRAPH) + JPEG[2:] + JPEG  # a preview follows, as in an MPF file
    trimmed = trimming.jpeg(body)
    assert len(trimmed.body) <= 2 * len(JPEG)
    assert trimmed.exif == PHOTOGRAPH[0][4:]
    assert torch.equal(pixels(body), pixels(JPEG))


def test_what_tells_a_jpegs_colour_space_is_kept() -> None:
    inverted = encode(NOISE.convert("CMYK"), "JPEG")
    assert inverted.count(b"Adobe") == trimming.jpeg(inverted).body.count(b"Adobe") == 1
    named = JPEG.replace(b"\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01", b"\x03R\x22\x00G\x11\x01B\x11\x01")
    named = named.replace(b"\x03\x01\x00\x02\x11\x03\x11", b"\x03R\x00G\x11B\x11")
    bare = named[:2] + named[20:]  # without JFIF's segment the components' names tell
    assert not torch.equal(pixels(named), pixels(bare))
    for body in (inverted, named, bare):
        assert torch.equal(pixels(body), as_pillow_reads(body))


def test_a_pngs_pixels_may_come_in_any_chunks_in_a_row() -> None:
    compressed = zlib.compress(b"".join(b"\x00" + row.tobytes() for row in np.asarray(NOISE)), 0)
    pieces = [chunk(b"IDAT", compressed[at : at + 1]) for at in range(len(compressed))]
    whole = PNG[:33] + b"".join(pieces) + PNG[-12:]
    assert torch.equal(pixels(whole), pixels(PNG))
    with pytest.raises(BadImage):
        pixels(PNG[:33] + b"".join(pieces[:900]) + chunk(b"tEXt") + b"".join(pieces[900:]) + PNG[-12:])


def test_a_pngs_text_palette_checksum_and_later_frames() -> None:
    frames = encode(NOISE, "PNG", save_all=True, append_images=[NOISE.rotate(180)])
    trimmed = trimming.png(frames)
    assert {b"acTL", b"fcTL", b"fdAT"} & {trimmed.body[at + 4 : at + 8] for at in (8, 33)} == set()
    assert torch.equal(pixels(frames), pixels(PNG))
    palette = bytearray(encode(NOISE.convert("P"), "PNG"))
    palette[palette.index(b"PLTE") + 4] ^= 1
    with pytest.raises(BadImage):
        pixels(bytes(palette))


@pytest.mark.parametrize("kind", ["still", "animated"])
def test_of_a_webp_the_first_picture_is_left(kind: str) -> None:
    more = {"save_all": True, "append_images": [NOISE.rotate(180)] * 5} if kind == "animated" else {}
    body = encode(NOISE, "WEBP", icc_profile=bytes(5000), exif=b"Exif\x00\x00" + bytes(50), xmp=bytes(5000), **more)
    trimmed = trimming.webp(body)
    assert trimmed.body.count(b"VP8 ") == 1
    assert not any(name in trimmed.body for name in (b"ICCP", b"EXIF", b"XMP "))
    assert trimmed.exif.endswith(bytes(50))
    assert torch.equal(pixels(body), as_pillow_reads(body))


def test_a_frame_of_a_webp_may_not_hide_parts() -> None:
    body = encode(NOISE, "WEBP", save_all=True, append_images=[NOISE.rotate(180)])
    start = body.index(b"ANMF")
    stop = start + 8 + int.from_bytes(body[start + 4 : start + 8], "little")
    content = body[start + 8 : stop] + (b"abcd" + bytes(4)) * 500
    hiding = riff(body[12:start] + b"ANMF" + struct.pack("<I", len(content)) + content + body[stop:])
    assert b"abcd" not in trimming.webp(hiding).body
    assert torch.equal(pixels(hiding), as_pillow_reads(body))


def test_where_a_gifs_first_frame_does_not_reach_its_transparent_colour_shows() -> None:
    image = Image.fromarray(np.arange(32, dtype=np.uint8).reshape(8, 4) % 4).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    body = bytearray(encode(image, "GIF", transparency=2, disposal=2, comment=b"some text"))
    body[6] = 8  # twice as wide as its frame
    trimmed = trimming.gif(bytes(body)).body
    assert b"some text" not in trimmed
    assert b"!\xf9\x04\x01\x00\x00\x02\x00," in trimmed
    assert {tuple(pixel) for pixel in pixels(bytes(body))[:, :, 4:].flatten(1).T.tolist()} == {(0, 0, 255)}


@pytest.mark.parametrize("trim", [trimming.jpeg, trimming.png, trimming.gif, trimming.webp])
@pytest.mark.parametrize("body", [JPEG, PNG, GIF, WEBP], ids=["jpeg", "png", "gif", "webp"])
def test_a_file_may_end_anywhere(trim: Callable[[bytes], trimming.Trimmed], body: bytes) -> None:
    for length in range(12, len(body), 7):
        assert len(trim(body[:length]).body) < len(body) + 100
