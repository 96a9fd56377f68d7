"""The stitches of a family, against the published routes."""

from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any

import pytest
import recipe
from hypothesis import given, settings
from hypothesis import strategies as st

from stitching.enumeration import (
    Position,
    anchor_pairs,
    paired_stitches,
    paired_window,
    stage_stitches,
    two_way_stitches,
)
from stitching.stitch import Segment, Stitch

# kernel, stride, stitches with nearest stitching, stitching layers a pair, stitches over all pairs
COUNTS = [
    (2, 1, 71, 11, 732),
    (1, 1, 27, 12, 117),
    (2, 2, 51, 6, 387),
    (3, 1, 111, 10, 1748),
    (3, 2, 91, 6, 1190),
    (3, 3, 75, 4, 813),
    (4, 1, 147, 9, 3035),
    (4, 2, 131, 5, 2419),
    (4, 4, 99, 3, 1395),
    (6, 1, 207, 7, 5962),
    (12, 1, 291, 1, 11667),
]


def published(route: dict[str, Any], pairs: Sequence[tuple[int, int]]) -> Stitch:
    """A stitch from the published walk, of which `pairs` names the anchors that each layer's first number joins."""
    segments = [Segment(op["anchor"], op["from"], op["to"]) for op in route["path"] if op["op"] == "blocks"]
    modules = [op["module"].split(".")[1:] for op in route["path"] if op["op"] == "stitch"]
    layers = tuple((int(pair), int(layer)) for pair, layer in modules)
    assert [pairs[pair] for pair, _ in layers] == list(pairwise(route["anchors"]))
    return Stitch(route["id"], tuple(segments), layers)


@pytest.mark.parametrize(("name", "nearest", "count"), [("deit", True, 71), ("deit_nonearest", False, 732)])
def test_ids_segments_and_layers_are_the_published_ones(name: str, nearest: bool, count: int) -> None:
    expected = [published(route, anchor_pairs(3, nearest)) for route in recipe.stored(f"routes_{name}")]
    assert len(expected) == count
    assert list(paired_stitches(12, 3, 2, 1, nearest)) == expected


STAGES: dict[str, tuple[list[tuple[int, ...]], tuple[int, ...]]] = {
    "swin": ([(2, 2, 6, 2), (2, 2, 18, 2), (2, 2, 18, 2)], (0, 1, 2)),
    "levit_192_256": ([(4, 4, 4), (4, 4, 4)], (0, 1)),
    "resnet18_50": ([(2, 2, 2, 2), (3, 4, 6, 3)], (1, 2)),
    "resnet18_swin_ti": ([(2, 2, 2, 2), (2, 2, 6, 2)], (1, 2)),
}


def through_stages(route: dict[str, Any], anchors: Sequence[Sequence[int]]) -> Stitch:
    """A stitch from the published walk, its blocks numbered through the stages."""
    blocks: list[list[int]] = [[]]
    layers: list[tuple[int, ...]] = []
    for op in route["path"]:
        if op["op"] == "stitch":
            layers.append(tuple(map(int, op["module"].split(".")[1:])))
            blocks.append([])
        elif op["op"] in {"stage", "blocks"}:
            first = sum(anchors[op["anchor"]][: op.get("stage", 0)])
            blocks[-1] += range(first + op["from"], first + op["to"])
    segments = []
    for anchor, run in zip(route["anchors"], blocks, strict=True):
        start = run[0] if run else anchors[anchor][0]
        assert run == list(range(start, start + len(run)))
        segments.append(Segment(anchor, start, start + len(run)))
    return Stitch(route["id"], tuple(segments), tuple(layers))


@pytest.mark.parametrize("name", STAGES)
def test_stages_have_the_published_ids(name: str) -> None:
    anchors, stages = STAGES[name]
    expected = [through_stages(route, anchors) for route in recipe.stored(f"routes_{name}")]
    assert list(stage_stitches(anchors, stages)) == expected


@pytest.mark.parametrize(("name", "large"), [("snnetv2_s_b", 12), ("snnetv2_s_l", 24)])
def test_two_ways_have_the_published_ids(name: str, large: int) -> None:
    routes = recipe.stored(f"routes_{name}")
    expected = [through_stages({**route, "anchors": anchors_of(route)}, [(12,), (large,)]) for route in routes]
    assert list(two_way_stitches(12, large)) == expected


def anchors_of(route: dict[str, Any]) -> list[int]:
    """The anchors in the order they are run, which for an empty segment is told by its norm alone."""
    walk = [op["anchor"] for op in route["path"] if op["op"] in {"embed", "blocks", "final_norm"}]
    return [anchor for index, anchor in enumerate(walk) if index == 0 or anchor != walk[index - 1]]


def test_rules_that_do_not_fit_the_anchors_are_refused() -> None:
    with pytest.raises(ValueError, match="anchor 0 is deeper than anchor 1"):
        stage_stitches([(2, 6), (2, 4)], (1,))
    with pytest.raises(ValueError, match="as many stages each"):
        stage_stitches([(2, 6), (2,)], (0,))
    with pytest.raises(ValueError, match="ascending numbers from 0 to 1"):
        stage_stitches([(2, 6), (2, 6)], (2,))
    with pytest.raises(ValueError, match="12 and 18"):
        two_way_stitches(12, 18)


@pytest.mark.parametrize(("kernel", "stride", "nearest", "layers", "every"), COUNTS)
def test_counts_of_other_windows(kernel: int, stride: int, nearest: int, layers: int, every: int) -> None:
    assert len(paired_stitches(12, 3, kernel, stride, nearest=True)) == nearest
    assert len(paired_stitches(12, 3, kernel, stride, nearest=False)) == every
    assert {position.layer for position in paired_window(12, kernel, stride)} == set(range(layers))


def test_a_window_joins_any_of_its_blocks_and_an_earlier_window_keeps_its_layer() -> None:
    ways = [(p.front, p.end, p.layer) for p in paired_window(3, 2, 1)]
    assert ways == [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0), (1, 2, 1), (2, 1, 1), (2, 2, 1)]


def test_a_window_without_new_joins_has_no_layer_of_its_own() -> None:
    assert paired_window(2, 2, 1) == paired_window(2, 2, 2)


def test_two_anchors_are_the_same_with_and_without_nearest() -> None:
    stitches = paired_stitches(12, 2, 2, 1, nearest=True)
    assert stitches == paired_stitches(12, 2, 2, 1, nearest=False)
    assert len(stitches) == 2 + 34


def test_four_anchors_nearest_are_three_neighbouring_pairs() -> None:
    stitches = paired_stitches(12, 4, 2, 1, nearest=True)
    assert len(stitches) == 4 + 3 * 34
    chains = {tuple(segment.anchor for segment in stitch.segments) for stitch in stitches}
    assert chains == {(0,), (1,), (2,), (3,), (0, 1), (1, 2), (2, 3)}
    assert all(layer[0] == stitch.segments[0].anchor for stitch in stitches for layer in stitch.layers)


def test_four_anchors_over_all_pairs_walk_every_rising_chain() -> None:
    stitches = paired_stitches(3, 4, 2, 1, nearest=False)
    chains = {tuple(segment.anchor for segment in stitch.segments) for stitch in stitches}
    assert chains == {chain for size in range(1, 5) for chain in combinations(range(4), size)}
    for stitch in stitches:
        joined = [anchor_pairs(4, nearest=False)[pair] for pair, _ in stitch.layers]
        assert joined == list(pairwise(segment.anchor for segment in stitch.segments))


@settings(max_examples=50, deadline=None)
@given(
    depth=st.integers(1, 6),
    anchors=st.integers(2, 4),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    nearest=st.booleans(),
)
def test_stitches_of_any_family_hang_together(
    depth: int, anchors: int, kernel: int, stride: int, nearest: bool
) -> None:
    stitches = paired_stitches(depth, anchors, kernel, stride, nearest)
    ways = {(p.front, p.end): p for p in paired_window(depth, kernel, stride)}
    assert [stitch.id for stitch in stitches] == list(range(len(stitches)))
    assert len({(stitch.segments, stitch.layers) for stitch in stitches}) == len(stitches)
    for stitch in stitches:
        assert stitch.segments[0].start == 0
        assert stitch.segments[-1].stop == depth
        assert all(segment.start < segment.stop for segment in stitch.segments)
        for (front, end), (_, layer) in zip(pairwise(stitch.segments), stitch.layers, strict=True):
            assert ways[front.stop - 1, end.start] == Position(front.stop - 1, end.start, layer)
            assert abs(front.stop - 1 - end.start) < kernel


@pytest.mark.parametrize(
    ("depth", "anchors", "kernel", "stride"), [(12, 1, 2, 1), (0, 3, 2, 1), (12, 3, 0, 1), (12, 3, 2, 0)]
)
def test_sizes_that_make_no_family_are_refused(depth: int, anchors: int, kernel: int, stride: int) -> None:
    with pytest.raises(ValueError, match=f"anchors={anchors} depth={depth} kernel={kernel} stride={stride}"):
        paired_stitches(depth, anchors, kernel, stride, nearest=True)
