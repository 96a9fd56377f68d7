"""What each step of a family costs by itself, counted without computing anything."""

import torch
from torch import Size
from torch.utils.flop_counter import FlopCounterMode

from stitching.families import Family
from stitching.flops import COUNTED
from stitching.unfilled import unfilled


@torch.no_grad()
def step_flops(family: Family) -> dict[str, int]:
    """FLOPs of every step that stitches walk, for one image, by its name; as `flops` counts them.

    On the meta device: no weights are needed, and the choice of attention kernels, which is the whole process's, stays.
    """
    model = unfilled(family).to("meta").eval()
    size = family.preprocessing.size
    counted: dict[str, int] = {}
    shapes: dict[tuple[str, Size], Size] = {}
    for stitch in model.stitches:
        shape = Size((1, 3, size, size))
        for step in model.path(stitch) if stitch.is_whole else ():
            key = step.name, shape
            if key not in shapes:
                with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
                    shapes[key] = step(torch.empty(shape, device="meta")).shape
                counted[step.name] = counter.get_total_flops() // 2
            shape = shapes[key]
    return counted
