"""Which JPEGs a decoder gets that is not to mend any: plain ones, and none that is refused today."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lookup_tables.table import Preprocessing
from server import jpeg, trimming
from server.images import Limits
from server.pixels import decode
from server.wellformed import plain

SMALL = Preprocessing(size=8, crop=1.0, interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (47, 61, 3), dtype=np.uint8))


def encode(image: Image.Image = NOISE, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def looked_at(body: bytes) -> bytes | None:
    """What is found plain of a file that was trimmed and is not too large, as it is when it is read."""
    trimmed = trimming.jpeg(body).body
    header = jpeg.header(trimmed)
    if header is None or header.size[0] * header.size[1] > Limits().max_pixels:
        return None
    found = plain(trimmed, header)
    return None if found is None else bytes(found)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


WHOLE = encode()
FRAME, SCAN = WHOLE.index(b"\xff\xc0"), WHOLE.index(b"\xff\xda")
RESTARTING = encode(restart_marker_blocks=3)
FILES = {
    "4:2:0": WHOLE,
    "4:2:2": encode(subsampling=1),
    "4:4:4": encode(subsampling=0),
    "gray": encode(NOISE.convert("L")),
    "its own codes": encode(optimize=True),
    "restarts": RESTARTING,
    "restarts in each row": encode(restart_marker_rows=1),
    "coarse": encode(quality=1),
    "fine": encode(quality=100),
}


@pytest.mark.parametrize("name", FILES)
def test_what_encoders_write_is_plain_up_to_its_end(name: str) -> None:
    body = FILES[name]
    trimmed = trimming.jpeg(body).body
    assert looked_at(body) == trimmed
    assert looked_at(body + b"more" + body) == trimmed, "what follows is not looked at"


ODD = {
    "progressive": encode(progressive=True),
    "four colours": encode(NOISE.convert("CMYK")),
    "RGB": encode(keep_rgb=True),
    "another size announced before": WHOLE[:FRAME] + encode(NOISE.resize((20, 20)))[FRAME:SCAN] + WHOLE[FRAME:],
    "another frame's header": WHOLE[:FRAME] + WHOLE[FRAME:SCAN].replace(b"\xff\xc0", b"\xff\xc1") + WHOLE[SCAN:],
    "no codes": WHOLE[:FRAME] + WHOLE[FRAME : WHOLE.index(b"\xff\xc4")] + WHOLE[SCAN:],
    "a scan in its pixels": WHOLE[: SCAN + 100] + WHOLE[SCAN:],
    "a restart that was not announced": WHOLE[: SCAN + 200] + b"\xff\xd0" + WHOLE[SCAN + 200 :],
    "a restart missing": RESTARTING.replace(b"\xff\xd1", b"", 1),
    "restarts in disorder": RESTARTING.replace(b"\xff\xd1", b"\xff\xd3", 1),
    "a restart too many": RESTARTING[:-2] + b"\xff\xd0\xff\xd9",
    "padding before its end": WHOLE[:-2] + b"\xff\xff\xd9",
    "arithmetic codes": WHOLE[:SCAN] + segment(0xCC, b"\x00\x10") + WHOLE[SCAN:],
    "its height only after the pixels": WHOLE[: FRAME + 5] + b"\0\0" + WHOLE[FRAME + 7 :],
    "a table too long": WHOLE[:SCAN] + segment(0xDB, b"\x00" + bytes([1]) * 65) + WHOLE[SCAN:],
    "a table with a zero": WHOLE[:SCAN] + segment(0xDB, b"\x00" + bytes(64)) + WHOLE[SCAN:],
    "more words than there are": WHOLE[:SCAN] + segment(0xC4, b"\x00\x03" + bytes(15) + b"\x00\x01\x02") + WHOLE[SCAN:],
    "a word of ones": WHOLE[:SCAN] + segment(0xC4, b"\x00\x02" + bytes(15) + b"\x00\x01") + WHOLE[SCAN:],
    "bits that no pixel needs": WHOLE[:SCAN] + segment(0xC4, b"\x00\x01" + bytes(15) + b"\x0c") + WHOLE[SCAN:],
    "restarts announced twice": RESTARTING.replace(b"\xff\xda", segment(0xDD, b"\0\3") + b"\xff\xda", 1),
    "an empty table": WHOLE[:SCAN] + segment(0xDB, b"") + WHOLE[SCAN:],
    "an empty table of codes": WHOLE[:SCAN] + segment(0xC4, b"") + WHOLE[SCAN:],
    "no pixels": WHOLE[: SCAN + 14] + b"\xff\xd9",
    "fewer pixels than it can have": WHOLE[: SCAN + 14] + bytes(12 * 6 * 2 // 8 - 1) + b"\xff\xd9",
    "many tables": WHOLE[:SCAN] + segment(0xDD, b"\0\0") * 40 + WHOLE[SCAN:],
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_left_to_libjpeg(name: str) -> None:
    assert looked_at(ODD[name]) is None


def test_a_file_that_was_cut_anywhere_is_not_plain() -> None:
    assert [length for length in range(12, len(WHOLE)) if looked_at(WHOLE[:length]) is not None] == []
    assert looked_at(WHOLE) is not None


def test_a_file_is_plain_only_as_what_its_header_was_taken_for() -> None:
    trimmed = trimming.jpeg(WHOLE).body
    assert plain(trimmed, jpeg.Header((61, 47), "RGB")) is not None
    for other in (jpeg.Header((47, 61), "RGB"), jpeg.Header((61, 47), "GRAY")):
        assert plain(trimmed, other) is None


edits = st.lists(
    st.tuples(st.integers(0, 700) | st.integers(0, 4000), st.integers(0, 4), st.binary(max_size=4)),
    min_size=1,
    max_size=3,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(FILES)), edits)
def test_what_is_plain_is_refused_by_no_decoder(name: str, edits: list[tuple[int, int, bytes]]) -> None:
    body = FILES[name]
    for position, removed, inserted in edits:
        body = body[:position] + inserted + body[position + removed :]
    found = looked_at(body)
    if found is not None and body.startswith(b"\xff\xd8\xff"):  # by which it is taken for a JPEG
        assert decode(body, SMALL, Limits()).shape == (3, 8, 8)
        assert decode(found, SMALL, Limits(), exact=True).shape == (3, 8, 8)
