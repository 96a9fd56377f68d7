"""FLOPs of steps add up to those of the stitches that walk them."""

import pytest

from lookup_tables.table import LookupTable, folder
from stitching.families import FAMILIES
from stitching.step_flops import step_flops


@pytest.mark.parametrize("name", ["digits", "resnet18_50", "levit_192_256"])
def test_steps_add_up_to_what_the_table_says(name: str) -> None:
    counted, table = step_flops(FAMILIES[name]), LookupTable.load(folder(name))
    assert table.modules
    for entry in table.entries:
        assert sum(counted[step] for step, _ in table.modules.walk(entry.route)) == entry.flops
