"""SNNet: anchors and stitching layers, and the one walk through them that serves every stitch."""

from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from stitching.anchors import Step, build_anchor, kinds, structure
from stitching.families import Family
from stitching.layers import StitchingLayer
from stitching.stitch import Join, LayerKey, Stitch
from stitching.wavefront import Schedule, Through, run_mixed, schedule

MOST_SCHEDULES = 1024
"""How many mixtures' schedules a model remembers."""


def plainly(step: Step, x: Tensor, _: bool) -> Tensor:
    """Calls a step, and nothing else."""
    return step(x)


class SNNet(nn.Module):
    """A stitchable network: every stitch of `family`, on one set of weights.

    Which stitch runs is an argument of `forward`, never a state of the model, so concurrent callers cannot meet.
    The state_dict has the released checkpoints' key names. Raises ValueError where the anchors do not fit together.
    """

    def __init__(self, family: Family, drop_path: Sequence[float] = (), *, lora: bool = False) -> None:
        super().__init__()
        self.family = family
        rates = drop_path or (0.0,) * len(family.anchors)
        self.seams = tuple(
            build_anchor(spec, family.classes, rate) for spec, rate in zip(family.anchors, rates, strict=True)
        )
        self.anchors = nn.ModuleList(seam.net for seam in self.seams)
        try:
            self.stitches = family.rule.stitches([seam.stages for seam in self.seams])
        except ValueError as error:
            raise ValueError(f"family {family.name!r}: {error}") from error
        self._schedules: dict[tuple[Stitch, ...], Schedule[Step]] = {}
        self.joins = tuple(sorted({join for stitch in self.stitches for join in stitch.joins()}))
        self.stitch_layers = nn.ModuleDict()
        first: dict[LayerKey, Join] = {}
        for join in self.joins:
            first.setdefault(join.layer, join)
        layers = {key: self._new_layer(join, family.lora_rank if lora else 0) for key, join in first.items()}
        kind_of = self._layer_kinds(first, layers)
        self._layer_steps = {
            key: Step(_keep(self.stitch_layers, key, layer), kind_of[key], layer, (layer,))
            for key, layer in layers.items()
        }

    def _layer_kinds(
        self, joins: Mapping[LayerKey, Join], layers: Mapping[LayerKey, StitchingLayer]
    ) -> dict[LayerKey, str]:
        """The module class of each stitching layer, which stands at its join."""
        names = self.family.anchor_names
        kind_of: dict[LayerKey, str] = {}
        for front, end in sorted({(join.front, join.end) for join in joins.values()}):
            keys = [key for key, join in joins.items() if (join.front, join.end) == (front, end)]
            built = [(self.seams[front].stage(joins[key].stop - 1), structure(layers[key])) for key in keys]
            kind_of |= zip(keys, kinds(f"{names[front]}>{names[end]}", built), strict=True)
        return kind_of

    def _new_layer(self, join: Join, rank: int) -> StitchingLayer:
        front, end = self.seams[join.front], self.seams[join.end]
        widths = front.widths[join.stop], end.widths[join.start]
        try:
            return StitchingLayer(*widths, front.layout, end.layout, rank)
        except ValueError as error:
            names = " and ".join(repr(self.family.anchor_names[anchor]) for anchor in (join.front, join.end))
            raise ValueError(f"family {self.family.name!r}: anchors {names}: {error}") from error

    def layer(self, key: LayerKey) -> StitchingLayer:
        """The stitching layer of that key."""
        return cast(StitchingLayer, self._layer_steps[key].owns[0])

    def path(self, stitch: Stitch) -> tuple[Step, ...]:
        """The module calls of a stitch, in order: stem, blocks, a stitching layer between segments, head."""
        return tuple(step for segment in self.segments(stitch) for step in segment)

    def segments(self, stitch: Stitch) -> tuple[tuple[Step, ...], ...]:
        """The path by segment: the stem belongs to the first, a stitching layer to what it leads into."""
        first, end = self.seams[stitch.segments[0].anchor], self.seams[stitch.segments[-1].anchor]
        bare = not stitch.is_anchor and not self.family.norm_after_stitch
        parts = [list(self.seams[part.anchor].blocks[part.start : part.stop]) for part in stitch.segments]
        if end.last and stitch.is_whole:
            parts[-1][-1] = end.last
        for key, part in zip(stitch.layers, parts[1:], strict=True):
            part.insert(0, self._layer_steps[key])
        parts[0].insert(0, first.stem)
        parts[-1].append(end.bare_head if bare and end.bare_head else end.head)
        return tuple(map(tuple, parts))

    def forward(self, images: Tensor, stitch: Stitch | Sequence[Stitch], through: Through[Step] = plainly) -> Tensor:
        """Images (N, 3, H, W), normalised -> logits (N, classes).

        `stitch` is one for all rows, or a sequence of N, one per row: then rows that stand at the same block run it
        together. `through` is what runs a step. Raises ValueError when the sequence's length is not N.
        """
        if not isinstance(stitch, Stitch):
            return self._mixed(images, stitch, through)
        *steps, last = self.path(stitch)
        x = images
        for step in steps:
            x = through(step, x, True)
        return through(last, x, False)

    def _mixed(self, images: Tensor, stitches: Sequence[Stitch], through: Through[Step]) -> Tensor:
        if len(stitches) != len(images) or not len(images):
            raise ValueError(
                f"{len(images)} images but {len(stitches)} stitches: a mixed batch needs one stitch per row"
            )
        rows: dict[Stitch, list[int]] = {}
        for row, stitch in enumerate(stitches):
            rows.setdefault(stitch, []).append(row)
        mixture = tuple(sorted(rows, key=lambda stitch: stitch.id))
        plan = self._schedules.get(mixture)
        if plan is None:
            if len(self._schedules) >= MOST_SCHEDULES:
                self._schedules.clear()
            plan = self._schedules[mixture] = schedule([self.path(stitch) for stitch in mixture])
        return run_mixed(images, [rows[stitch] for stitch in mixture], plan, through)


def _keep(layers: nn.ModuleDict, key: LayerKey, layer: nn.Module) -> str:
    """Put a layer where its key says, nested as in the released checkpoints; gives its name in the state_dict."""
    for number in key[:-1]:
        if str(number) not in layers:
            layers[str(number)] = nn.ModuleDict()
        layers = cast(nn.ModuleDict, layers[str(number)])
    layers[str(key[-1])] = layer
    return ".".join(["stitch_layers", *map(str, key)])
