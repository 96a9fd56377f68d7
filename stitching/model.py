"""SNNet: anchors and stitching layers, and the one walk through them that serves every stitch."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import cast

from torch import Tensor, nn

from stitching.anchors import Step, build_anchor
from stitching.enumeration import anchor_pairs, paired_stitches, paired_window
from stitching.families import Family
from stitching.layers import StitchingLayer
from stitching.stitch import LayerKey, Stitch
from stitching.wavefront import run_mixed


class SNNet(nn.Module):
    """A stitchable network: every stitch of `family`, on one set of weights.

    Which stitch runs is an argument of `forward`, never a state of the model, so concurrent callers cannot meet.
    The state_dict has the released checkpoints' key names. Raises ValueError where the anchors do not fit together.
    """

    def __init__(self, family: Family, drop_path: float = 0.0) -> None:
        super().__init__()
        self.family = family
        seams = [build_anchor(spec, family.classes, drop_path) for spec in family.anchors]
        depths = {seam.depth for seam in seams}
        if len(depths) != 1:
            raise ValueError(f"family {family.name!r}: paired stitching needs anchors of equal depth, got {depths}")
        self.seams = tuple(seams)
        self.anchors = nn.ModuleList(seam.net for seam in seams)
        layers = 1 + max(p.layer for p in paired_window(seams[0].depth, family.kernel, family.stride))
        self.stitch_layers = nn.ModuleList(
            nn.ModuleList(StitchingLayer(seams[front].width, seams[end].width) for _ in range(layers))
            for front, end in anchor_pairs(len(seams), family.nearest)
        )
        self.stitches = paired_stitches(seams[0].depth, len(seams), family.kernel, family.stride, family.nearest)
        self._layer_steps: dict[LayerKey, Step] = {}
        for pair, row in enumerate(self.stitch_layers):
            for i, layer in enumerate(cast(nn.ModuleList, row)):
                self._layer_steps[pair, i] = Step(f"stitch_layers.{pair}.{i}", layer, (layer,))

    def layer(self, key: LayerKey) -> StitchingLayer:
        """The stitching layer of that key."""
        return cast(StitchingLayer, self._layer_steps[key].owns[0])

    def path(self, stitch: Stitch) -> tuple[Step, ...]:
        """The module calls of a stitch, in order: stem, blocks, a stitching layer between segments, head."""
        first, last = self.seams[stitch.segments[0].anchor], self.seams[stitch.segments[-1].anchor]
        steps = [first.stem]
        for segment, key in zip_longest(stitch.segments, stitch.layers):
            steps += self.seams[segment.anchor].blocks[segment.start : segment.stop]
            if key is not None:
                steps.append(self._layer_steps[key])
        normed = stitch.is_anchor or self.family.norm_after_stitch
        return (*steps, last.head if normed else last.bare_head)

    def forward(self, images: Tensor, stitch: Stitch | Sequence[Stitch]) -> Tensor:
        """Images (N, 3, H, W), normalised -> logits (N, classes).

        `stitch` is one for all rows, or a sequence of N, one per row: then rows that stand at the same block run it
        together. Raises ValueError when the sequence's length is not N.
        """
        if not isinstance(stitch, Stitch):
            return run_mixed(images, [self.path(s) for s in stitch])
        x = images
        for step in self.path(stitch):
            x = step(x)
        return x
