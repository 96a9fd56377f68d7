"""What is counted from a model agrees with the tables that ship."""

from pathlib import Path

import pytest
import torch

from lookup_tables.records import Top1Source
from lookup_tables.table import LookupTable, folder
from server.counting import composition, write_table
from stitching.families import FAMILIES
from stitching.flops import step_flops
from stitching.model import SNNet

SHIPPED = [name for name in FAMILIES if (folder("digits").parent / name).is_dir()]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_modules_are_those_of_the_network(name: str) -> None:
    with torch.device("meta"):
        model = SNNet(FAMILIES[name])
    table = LookupTable.load(folder(name))
    stitches = [stitch for stitch in model.stitches if stitch.is_whole]
    assert table.modules == composition(model, dict(zip(stitches, step_flops(model, stitches), strict=True)))
    for entry in table.entries:
        walk = [(step.name, step.kind) for step in model.path(model.stitches[entry.stitch])]
        assert table.modules.walk(entry.route) == walk


@pytest.mark.parametrize("name", SHIPPED)
def test_modules_of_one_class_take_and_give_the_same_shapes(name: str) -> None:
    with torch.device("meta"):
        model = SNNet(FAMILIES[name]).eval()
        size = model.family.preprocessing.size
        images = torch.empty(2, 3, size, size)
    shapes: dict[str, set[tuple[torch.Size, torch.Size]]] = {}
    done: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        for stitch in (stitch for stitch in model.stitches if stitch.is_whole):
            x = images
            for step in model.path(stitch):
                shape = x.shape
                key = f"{step.name} {shape}"
                if key not in done:
                    done[key] = step(x)
                x = done[key]
                shapes.setdefault(step.kind, set()).add((shape, x.shape))
    assert {kind: len(seen) for kind, seen in shapes.items()} == dict.fromkeys(shapes, 1)


def test_a_written_table_says_what_its_stitches_are_made_of(tmp_path: Path) -> None:
    model = SNNet(FAMILIES["digits"])
    labels = [str(number) for number in range(100)]
    write_table(tmp_path, model, top1={}, source=Top1Source("none"), labels=labels, checkpoint=None)
    table = LookupTable.load(tmp_path)
    assert table.modules == LookupTable.load(folder("digits")).modules
