"""What the README says about the families is what their tables say."""

import re
from pathlib import Path

import pytest

from lookup_tables.table import LookupTable, folder
from stitching.families import FAMILIES, RELEASES

TEXT = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
ROWS = [line.strip("|").split("|") for line in TEXT.splitlines() if re.match(r"\| `\w+` \|.*\|.*\|.*\|", line)]
FAMILY_ROWS = {cells[0].strip().strip("`"): [cell.strip() for cell in cells[1:]] for cells in ROWS}


def test_every_family_has_a_row() -> None:
    assert list(FAMILY_ROWS) == list(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_says_what_the_table_says(name: str) -> None:
    table = LookupTable.load(folder(name))
    _, stitches, frontier, gflops, top1, weights = FAMILY_ROWS[name]
    assert int(stitches) == len(table.entries)
    flops = [entry.flops / 1e9 for entry in table.entries]
    written = [float(number) for number in gflops.split("\N{EN DASH}")]
    assert written == pytest.approx([min(flops), max(flops)], rel=0.01)
    known = [100 * entry.top1 for entry in table.entries if entry.top1 is not None]
    assert frontier == (str(len(table.frontier())) if known else "\N{EN DASH}")
    origin = "measured" if table.family.top1.source.startswith("measured") else "published"
    assert top1 == (f"{min(known):.1f}\N{EN DASH}{max(known):.1f} % {origin}" if known else "none published")
    assert ("pull" in weights) == (name in RELEASES)
