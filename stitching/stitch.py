"""A stitch: a route through the blocks of one or more anchors."""

from dataclasses import dataclass

LayerKey = tuple[int, ...]
"""Where a stitching layer stands in its family: (pair, layer) for plain vision transformers."""


@dataclass(frozen=True)
class Segment:
    """Blocks [start, stop) of one anchor."""

    anchor: int
    start: int
    stop: int


@dataclass(frozen=True)
class Stitch:
    """One sub-network: segments in the order they run, and the stitching layer between each two of them.

    `id` is the published id: the stitch's index in its family.
    """

    id: int
    segments: tuple[Segment, ...]
    layers: tuple[LayerKey, ...] = ()

    @property
    def is_anchor(self) -> bool:
        """Whether this is one anchor alone, run from end to end."""
        return len(self.segments) == 1

    def route(self, anchors: tuple[str, ...]) -> str:
        """The stitch in words, such as `deit_ti[0:4]>deit_s[4:12]`, given the anchors' names."""
        return ">".join(f"{anchors[s.anchor]}[{s.start}:{s.stop}]" for s in self.segments)
