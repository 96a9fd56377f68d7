"""Which stitches a family has, in the order of the published ids (Pan et al., CVPR 2023, section 3.3)."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise

from stitching.stitch import LayerKey, Segment, Stitch


@dataclass(frozen=True)
class Position:
    """One way across a pair of anchors: front blocks 0..front, stitching layer `layer`, then end blocks from `end`."""

    front: int
    end: int
    layer: int


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
    routes: list[tuple[tuple[Segment, ...], tuple[LayerKey, ...]]] = []
    for size in range(1, (2 if nearest else anchors) + 1):
        for chain in combinations(range(anchors), size):
            if all(pair in pairs for pair in pairwise(chain)):
                keys = [pairs[pair] for pair in pairwise(chain)]
                routes += [_route(chain, joins, keys, depth) for joins in _joins(positions, size - 1)]
    return tuple(Stitch(index, segments, layers) for index, (segments, layers) in enumerate(routes))


def _joins(positions: tuple[Position, ...], count: int, start: int = 0) -> Iterator[tuple[Position, ...]]:
    """Every sequence of `count` positions in which each leaves its anchor no earlier than it was entered."""
    if count == 0:
        yield ()
        return
    for position in positions:
        if position.front >= start:
            for rest in _joins(positions, count - 1, position.end):
                yield (position, *rest)


def _route(
    chain: tuple[int, ...], joins: tuple[Position, ...], pairs: list[int], depth: int
) -> tuple[tuple[Segment, ...], tuple[LayerKey, ...]]:
    starts = [0, *(join.end for join in joins)]
    stops = [*(join.front + 1 for join in joins), depth]
    segments = tuple(Segment(*part) for part in zip(chain, starts, stops, strict=True))
    return segments, tuple((pair, join.layer) for pair, join in zip(pairs, joins, strict=True))
