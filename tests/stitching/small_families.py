"""Families small enough to run and train in a test."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import recipe

from stitching.families import FAMILIES, AnchorSpec, Family, Preprocessing
from stitching.model import SNNet

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


def with_recipe_weights(family: Family) -> SNNet:
    """The family's network in eval mode, every weight by the recipe."""
    model = SNNet(family)
    model.load_state_dict(recipe.state({key: tuple(value.shape) for key, value in model.state_dict().items()}))
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
