"""How large a JPEG is left by its decoder: a front end's memory has places for that, and no more; which are quick."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lookup_tables.table import LookupTable, folder
from server import jpeg
from server.images import is_quick

FAMILIES = {name: LookupTable.load(folder(name)).family.preprocessing for name in ("digits", "deit_ti_s_b")}


@pytest.mark.parametrize("name", FAMILIES)
@given(width=st.integers(1, 20_000), height=st.integers(1, 20_000))
def test_no_picture_is_larger_than_is_said_of_one_with_as_many_pixels(name: str, width: int, height: int) -> None:
    preprocessing = FAMILIES[name]
    scaled = [(-(-width * eighths // 8), -(-height * eighths // 8)) for eighths in range(1, 9)]  # as libjpeg rounds
    chosen = next((size for size in scaled if min(size) >= jpeg.least(preprocessing)), scaled[-1])
    if jpeg.is_for((width, height), preprocessing):
        assert 3 * chosen[0] * chosen[1] <= jpeg.most_bytes(preprocessing, width * height)


def encoded(side: int, kind: str = "JPEG", **options: bool) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), "teal").save(file, kind, **options)
    return file.getvalue()


def test_only_a_small_jpeg_of_few_scans_is_read_without_asking_a_thread() -> None:
    assert is_quick(encoded(64))
    assert not is_quick(encoded(256)), "its pixels"
    assert not is_quick(encoded(64) + bytes(10_000)), "its bytes"
    assert not is_quick(encoded(64, progressive=True)), "its scans"
    assert not is_quick(encoded(64)[:2] + b"\xff\xfe\x00\x02" * 100 + encoded(64)[2:]), "its parts"
    assert not is_quick(encoded(64, "PNG"))
    assert not is_quick(encoded(64)[:20])
    assert not is_quick(b"")
