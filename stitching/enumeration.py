"""Which stitches a family has, in the order of the published ids.

Paired and stage-wise stitching are those of Pan et al., CVPR 2023, section 3.3; two-way stitching that of SN-Net v2
(Pan et al., 2023). Blocks are numbered through an anchor's stages.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations, pairwise

from stitching.stitch import LayerKey, Segment, Stitch

Route = tuple[tuple[Segment, ...], tuple[LayerKey, ...]]
"""Segments and the stitching layers between them."""


@dataclass(frozen=True)
class Position:
    """One way across a pair of anchors: front blocks 0..front, stitching layer `layer`, then end blocks from `end`."""

    front: int
    end: int
    layer: int


def _numbered(routes: Iterable[Route]) -> tuple[Stitch, ...]:
    return tuple(Stitch(index, segments, layers) for index, (segments, layers) in enumerate(routes))


def _alone(depths: Iterable[int]) -> list[Route]:
    """Every anchor by itself."""
    return [((Segment(anchor, 0, depth),), ()) for anchor, depth in enumerate(depths)]


def paired_window(depth: int, kernel: int, stride: int) -> tuple[Position, ...]:
    """Positions between two anchors of equal depth: a window of `kernel` blocks slides by `stride`.

    Any block inside a window may join any other; a join seen in an earlier window keeps that window's stitching layer.
    Hence `end` may be front + 1, but also front (one block's work done by both) or smaller.
    """
    layer_of: dict[tuple[int, int], int] = {}
    layers = 0
    for first in range(0, depth, stride):
        window = range(first, min(first + kernel, depth))
        new = [(front, end) for front in window for end in window if (front, end) not in layer_of]
        layer_of |= dict.fromkeys(new, layers)
        layers += bool(new)
    return tuple(Position(front, end, layer) for (front, end), layer in layer_of.items())


def anchor_pairs(anchors: int, nearest: bool) -> tuple[tuple[int, int], ...]:
    """The pairs of anchors that are joined; a pair's index here is its index in the checkpoint's key names."""
    return tuple(pairwise(range(anchors))) if nearest else tuple(combinations(range(anchors), 2))


def paired_stitches(depth: int, anchors: int, kernel: int, stride: int, nearest: bool) -> tuple[Stitch, ...]:
    """Every stitch of anchors of equal depth: the anchors, then all chains over two and more of them.

    With `nearest` only neighbouring anchors are joined, two to a stitch. ValueError on sizes that make no family.
    """
    if anchors < 2 or min(depth, kernel, stride) < 1:
        raise ValueError(f"needs two anchors or more and positive sizes, got {anchors=} {depth=} {kernel=} {stride=}")
    positions = paired_window(depth, kernel, stride)
    pairs = {pair: index for index, pair in enumerate(anchor_pairs(anchors, nearest))}
    routes: list[Route] = []
    for size in range(1, (2 if nearest else anchors) + 1):
        for chain in combinations(range(anchors), size):
            if all(pair in pairs for pair in pairwise(chain)):
                keys = [(pairs[pair],) for pair in pairwise(chain)]
                routes += [_route(chain, joins, keys, depth) for joins in _joins(positions, size - 1)]
    return _numbered(routes)


def _joins(positions: tuple[Position, ...], count: int, start: int = 0) -> Iterator[tuple[Position, ...]]:
    """Every sequence of `count` positions in which each leaves its anchor no earlier than it was entered."""
    if count == 0:
        yield ()
        return
    for position in positions:
        if position.front >= start:
            for rest in _joins(positions, count - 1, position.end):
                yield (position, *rest)


def _route(chain: Sequence[int], joins: Sequence[Position], keys: Sequence[LayerKey], depth: int) -> Route:
    """The anchors of `chain`, left and entered as `joins` say; `keys` say where each join's layers are kept."""
    starts = [0, *(join.end for join in joins)]
    stops = [*(join.front + 1 for join in joins), depth]
    segments = tuple(Segment(*part) for part in zip(chain, starts, stops, strict=True))
    return segments, tuple((*key, join.layer) for key, join in zip(keys, joins, strict=True))


def unpaired(front_depth: int, end_depth: int) -> tuple[Position, ...]:
    """Positions between anchors of unequal depth: end block i continues the front block nearest to it in depth.

    End block i belongs to front block i * front_depth // end_depth. Where end block 0 falls out, as it always does,
    the layers do not move up with the rest: the position number n uses the layer that belongs to end block n. The
    reference has it so, and released weights depend on it.
    """
    nearest = [block * front_depth // end_depth for block in range(end_depth)]
    ways = [(front, end) for front in range(front_depth) for end in range(end_depth) if nearest[end] == front < end]
    return tuple(Position(front, end, nearest[number]) for number, (front, end) in enumerate(ways))


def stage_stitches(anchors: Sequence[Sequence[int]], stages: Sequence[int]) -> tuple[Stitch, ...]:
    """Every stitch of anchors in stages: the anchors, then one join inside one of `stages`, between neighbours.

    `anchors` are the depths of each anchor's stages. Stages of equal depth are joined from block w to block w + 1,
    others as `unpaired` has it. Layers are keyed (place in `stages`, pair, layer). ValueError on stages that do not
    fit.
    """
    if len(anchors) < 2 or len({len(depths) for depths in anchors}) != 1:
        raise ValueError(f"needs two anchors or more of as many stages each, got stages of {list(map(list, anchors))}")
    if not stages or not set(stages) <= set(range(len(anchors[0]))) or list(stages) != sorted(set(stages)):
        raise ValueError(f"stages {list(stages)}: needs ascending numbers from 0 to {len(anchors[0]) - 1}")
    offsets = [[0, *accumulate(depths)] for depths in anchors]
    routes = _alone(sum(depths) for depths in anchors)
    for index, stage in enumerate(stages):
        for pair, (front, end) in enumerate(pairwise(range(len(anchors)))):
            depths = anchors[front][stage], anchors[end][stage]
            if depths[0] > depths[1]:
                raise ValueError(f"stage {stage}: anchor {front} is deeper than anchor {end}; order them by depth")
            for at in _stage_positions(*depths):
                join = Position(offsets[front][stage] + at.front, offsets[end][stage] + at.end, at.layer)
                routes.append(_route((front, end), (join,), [(index, pair)], offsets[end][-1]))
    return _numbered(routes)


def _stage_positions(front_depth: int, end_depth: int) -> tuple[Position, ...]:
    if front_depth == end_depth:
        return tuple(Position(block, block + 1, block) for block in range(front_depth - 1))
    return unpaired(front_depth, end_depth)


def two_way_stitches(small: int, large: int) -> tuple[Stitch, ...]:
    """Every stitch of SN-Net v2: two anchors of depths `small` and `large`, joined in both directions.

    The anchors; small to large; large to small; large, small, large; small, large, small. Layers are keyed (0, i) from
    small to large and (1, i) back. The stitch of the whole small anchor and only the head of the large one has an id
    but no block in its last segment: neither trained nor served. ValueError unless `small` divides `large`.
    """
    if small < 1 or large % small:
        raise ValueError(f"two-way stitching needs depths of which one divides the other, got {small} and {large}")
    ratio = large // small
    up = [Position(block, (block + 1) * ratio, block) for block in range(small)]
    down = [Position((block + 1) * ratio - 1, block + 1, block) for block in range(small - 1)]
    depths = small, large
    ways = {0: up, 1: down}  # by the anchor that is left
    routes = _alone(depths)
    for chain in ((0, 1), (1, 0), (1, 0, 1), (0, 1, 0)):
        for first in ways[chain[0]]:
            if len(chain) == 2:
                routes.append(_route(chain, (first,), [(chain[0],)], depths[chain[-1]]))
                continue
            routes += [
                _route(chain, (first, second), [(chain[0],), (chain[1],)], depths[chain[-1]])
                for second in ways[chain[1]]
                if second.front >= first.end and second.end < depths[chain[-1]]
            ]
    return _numbered(routes)
