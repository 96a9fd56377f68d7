"""How large a JPEG's decoder leaves pictures: a front end's memory has places for that, and no more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookup_tables.table import LookupTable, folder
from server import jpeg

FAMILIES = {name: LookupTable.load(folder(name)).family.preprocessing for name in ("digits", "deit_ti_s_b")}


@pytest.mark.parametrize("name", FAMILIES)
@given(width=st.integers(1, 20_000), height=st.integers(1, 20_000))
def test_no_picture_is_larger_than_is_said_of_one_with_as_many_pixels(name: str, width: int, height: int) -> None:
    preprocessing = FAMILIES[name]
    scaled = [(-(-width * eighths // 8), -(-height * eighths // 8)) for eighths in range(1, 9)]  # as libjpeg rounds
    chosen = next((size for size in scaled if min(size) >= jpeg.least(preprocessing)), scaled[-1])
    if jpeg.is_for((width, height), preprocessing):
        assert 3 * chosen[0] * chosen[1] <= jpeg.most_bytes(preprocessing, width * height)
