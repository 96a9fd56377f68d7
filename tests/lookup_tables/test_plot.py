"""The picture is a picture of the table."""

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.image
import pytest

from lookup_tables.latency import Latency, Measurement
from lookup_tables.plot import plot
from lookup_tables.table import Cost, LookupTable, TableError, folder

FOLDER = Path(__file__).parent / "small"
SMALL = LookupTable.load(FOLDER, FOLDER / "latency.cpu-test.csv")
DEIT = LookupTable.load(folder("deit_ti_s_b"))


def measurements() -> tuple[Measurement, ...]:
    assert SMALL.latency
    return SMALL.latency.measurements


def svg(table: LookupTable, out: Path, cost: Cost = "flops", rows: int = 1) -> str:
    plot(table, out, cost, rows)
    assert ElementTree.parse(out).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    return out.read_text(encoding="utf-8")


def test_a_png_is_an_image_with_something_on_it(tmp_path: Path) -> None:
    plot(DEIT, tmp_path / "deit.png")
    pixels = matplotlib.image.imread(tmp_path / "deit.png")
    assert pixels.shape[:2] == (750, 1200)
    assert 0.01 < (pixels[..., :3].min(axis=-1) < 0.9).mean() < 0.5


def test_the_picture_names_anchors_axes_and_counts(tmp_path: Path) -> None:
    text = svg(DEIT, tmp_path / "deit.svg")
    for words in ("deit_ti", "deit_s", "deit_b", "GFLOPs (multiply-adds)", "top-1 (%)", "71 stitches", "39 stitches"):
        assert f"<!-- {words}" in text or f"{words} -->" in text


def test_small_networks_are_drawn_in_mflops(tmp_path: Path) -> None:
    assert "<!-- MFLOPs (multiply-adds) -->" in svg(SMALL, tmp_path / "small.svg")


def test_numbers_on_the_axis_are_plain(tmp_path: Path) -> None:
    text = svg(LookupTable.load(folder("levit_192_256")), tmp_path / "levit.svg")
    assert "<!-- MFLOPs (multiply-adds) -->" in text
    assert "<!-- 700 -->" in text
    fast = replace(SMALL, latency=Latency("fast", tuple(replace(m, p50=m.p50 / 1e4) for m in measurements())))
    text = svg(fast, tmp_path / "fast.svg", "latency")
    assert re.search(r"<!-- 0\.0*[1-9] -->", text)
    assert not re.search(r"<!-- \d(\.\d+)?e", text)


def test_latency_is_drawn_for_the_batch_asked_for(tmp_path: Path) -> None:
    assert "<!-- median latency of one image (ms) -->" in svg(SMALL, tmp_path / "one.svg", "latency")
    text = svg(SMALL, tmp_path / "four.SVG", "latency", rows=4)
    assert "<!-- median latency of a batch of 4 images (ms) -->" in text
    assert "<!-- frontier, 4 stitches -->" in text


@pytest.mark.parametrize("name", ["deit.pdf", "deit", "deit.png.txt"])
def test_another_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"must end in \.png or \.svg"):
        plot(DEIT, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_latency_without_a_profile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="run `stitchserve profile`"):
        plot(DEIT, tmp_path / "deit.png", "latency")


def test_a_table_without_top1_is_refused(tmp_path: Path) -> None:
    unknown = replace(SMALL, entries=tuple(replace(entry, top1=None) for entry in SMALL.entries))
    with pytest.raises(TableError, match="no top-1 to draw"):
        plot(unknown, tmp_path / "small.png")
