"""Families small enough to run and train in a test."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import recipe

from stitching.families import FAMILIES, AnchorSpec, Family, Preprocessing
from stitching.model import SNNet
from stitching.released import adapted
from stitching.rules import Staged, TwoWay

VIT = "vit_tiny_patch16_224"


def anchor(name: str, width: int, depth: int, size: int = 32, patch: int = 8) -> AnchorSpec:
    shape = {"img_size": size, "patch_size": patch, "embed_dim": width, "depth": depth, "num_heads": 2}
    return AnchorSpec(name, VIT, shape)


SMALL = Family(
    "small",
    tuple(anchor(f"s{width}", width, depth=12) for width in (16, 24, 32)),
    classes=10,
    norm_after_stitch=False,
    preprocessing=Preprocessing(size=32),
)
"""The DeiT family's shape, 71 stitches, at the widths of lsinit_small.npz."""

TINY = Family(
    "tiny",
    (anchor("tiny_a", 8, depth=2, patch=16), anchor("tiny_b", 16, depth=2, patch=16)),
    classes=3,
    preprocessing=Preprocessing(size=32, crop=1.0),
)
"""Six stitches, to train in milliseconds a step."""

TINY_RESNET = Family(
    "tiny_resnet",
    tuple(
        AnchorSpec(name, "resnet18", {"channels": (8, 8, 16, 16), "layers": layers})
        for name, layers in (("a", (1, 2, 2, 1)), ("b", (1, 2, 4, 1)))
    ),
    classes=3,
    rule=Staged((1, 2)),
    preprocessing=Preprocessing(size=32),
)
"""Convolutions and batch norms, six stitches."""

SMALL_SWIN = Family(
    "small_swin",
    tuple(
        AnchorSpec(
            f"swin{number}",
            "swin_tiny_patch4_window7_224",
            {"img_size": 64, "window_size": 4, "embed_dim": width, "depths": (2, 2, depth, 2), "num_heads": heads},
        )
        for number, (width, depth, heads) in enumerate(
            [(16, 6, (1, 2, 4, 8)), (16, 18, (1, 2, 4, 8)), (24, 18, (2, 4, 8, 16))]
        )
    ),
    classes=10,
    rule=Staged((0, 1, 2)),
    preprocessing=Preprocessing(size=64),
)
"""The Swin family's shape, 41 stitches, at the widths of small_swin_seed20.npz."""


def small_v2(depth: int) -> Family:
    """The shape of SN-Net v2, 135 stitches, at the widths of small_v2_seed20.npz; `depth` of the larger anchor."""
    shape = {"img_size": 32, "patch_size": 8, "num_heads": 2}
    anchors = (
        AnchorSpec("small", "deit3_small_patch16_224", {**shape, "embed_dim": 16, "depth": 12}),
        AnchorSpec("large", "deit3_small_patch16_224", {**shape, "embed_dim": 32, "depth": depth}),
    )
    return Family(
        f"small_v2_12_{depth}", anchors, 10, rule=TwoWay(), lora_rank=4, preprocessing=Preprocessing(size=32, crop=1.0)
    )


def with_recipe_weights(family: Family) -> SNNet:
    """The family's network in eval mode, every weight by the recipe."""
    model = SNNet(family)
    model.load_state_dict(recipe.state({key: tuple(value.shape) for key, value in model.state_dict().items()}))
    return model.eval()


def with_released_weights(family: Family) -> SNNet:
    """The same from the names of a released checkpoint, of which the fixtures have the list."""
    model = SNNet(family)
    model.load_state_dict(adapted(model.anchors, recipe.state(recipe.stored(f"keys_{family.name}"))))
    return model.eval()


@contextmanager
def registered(family: Family) -> Iterator[Family]:
    """The family among the named ones, inside the block."""
    named = cast(dict[str, Family], FAMILIES)
    named[family.name] = family
    try:
        yield family
    finally:
        del named[family.name]
