"""The stitching rules a family can have, as data: which joins there are between its anchors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from stitching.enumeration import paired_stitches, stage_stitches, two_way_stitches
from stitching.stitch import Stitch


@dataclass(frozen=True)
class Paired:
    """Anchors of equal depth; a window of `kernel` blocks slides by `stride`; `nearest` joins neighbours alone."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    kernel: Annotated[int, Field(ge=1)] = 2
    stride: Annotated[int, Field(ge=1)] = 1
    nearest: bool = True
    kind: Literal["paired"] = "paired"

    def stitches(self, anchors: Sequence[Sequence[int]]) -> tuple[Stitch, ...]:
        """The stitches of anchors with these depths of stages; ValueError where the rule does not fit them."""
        depths = {sum(stages) for stages in anchors}
        if len(depths) != 1:
            raise ValueError(f"paired stitching needs anchors of equal depth, got {sorted(depths)}")
        return paired_stitches(depths.pop(), len(anchors), self.kernel, self.stride, self.nearest)


@dataclass(frozen=True)
class Staged:
    """One join, inside one of these stages; anchors of unequal depth are joined by nearest depth."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    stages: tuple[int, ...] = (0,)
    kind: Literal["staged"] = "staged"

    def stitches(self, anchors: Sequence[Sequence[int]]) -> tuple[Stitch, ...]:
        """The stitches of anchors with these depths of stages; ValueError where the rule does not fit them."""
        return stage_stitches(anchors, self.stages)


@dataclass(frozen=True)
class TwoWay:
    """Two anchors joined in both directions, up to two joins a stitch (SN-Net v2)."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["two-way"] = "two-way"

    def stitches(self, anchors: Sequence[Sequence[int]]) -> tuple[Stitch, ...]:
        """The stitches of anchors with these depths of stages; ValueError where the rule does not fit them."""
        if len(anchors) != 2:
            raise ValueError(f"two-way stitching needs two anchors, got {len(anchors)}")
        return two_way_stitches(sum(anchors[0]), sum(anchors[1]))


Rule = Paired | Staged | TwoWay
