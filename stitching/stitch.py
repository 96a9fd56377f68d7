"""A stitch: a route through the blocks of one or more anchors."""

from dataclasses import dataclass
from itertools import pairwise

LayerKey = tuple[int, ...]
"""Where a stitching layer stands in its family: (pair, layer) or (stage, pair, layer)."""


@dataclass(frozen=True)
class Segment:
    """Blocks [start, stop) of one anchor."""

    anchor: int
    start: int
    stop: int


@dataclass(frozen=True, order=True)
class Join:
    """A stitching layer's place: after block `stop` - 1 of anchor `front`, before block `start` of anchor `end`."""

    layer: LayerKey
    front: int
    stop: int
    end: int
    start: int


@dataclass(frozen=True)
class Stitch:
    """One sub-network: segments in the order they run, and the stitching layer between each two of them.

    `id` is the published id: the stitch's index in its family.
    """

    id: int
    segments: tuple[Segment, ...]
    layers: tuple[LayerKey, ...] = ()

    def __hash__(self) -> int:
        return self.id  # a mixed batch looks up every row's stitch

    @property
    def is_anchor(self) -> bool:
        """Whether this is one anchor alone, run from end to end."""
        return len(self.segments) == 1

    @property
    def is_whole(self) -> bool:
        """Whether every segment has a block. The one of SN-Net v2 that has not is never trained or served."""
        return all(segment.start < segment.stop for segment in self.segments)

    def joins(self) -> tuple[Join, ...]:
        """Where one segment leads into the next."""
        return tuple(
            Join(layer, front.anchor, front.stop, end.anchor, end.start)
            for layer, (front, end) in zip(self.layers, pairwise(self.segments), strict=True)
        )

    def route(self, anchors: tuple[str, ...]) -> str:
        """The stitch in words, such as `deit_ti[0:4]>deit_s[4:12]`, given the anchors' names."""
        return ">".join(f"{anchors[s.anchor]}[{s.start}:{s.stop}]" for s in self.segments)
