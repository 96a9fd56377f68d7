"""Which stitch a step draws."""

from collections import Counter

import pytest
import recipe
import torch
from small_families import TINY

from stitching.drawing import draw, drawable, groups
from stitching.families import FAMILIES
from stitching.model import SNNet


def test_a_step_draws_by_seed_rank_and_number_alone() -> None:
    stitches = (SNNet(TINY).stitches,)

    def drawn(seed: int, rank: int) -> list[int]:
        return [draw(stitches, seed, rank, step).id for step in range(1200)]

    assert drawn(0, 0) == drawn(0, 0)
    assert drawn(0, 0) != drawn(0, 1)
    assert drawn(0, 0) != drawn(1, 0)
    counts = Counter(drawn(0, 0))
    assert set(counts) == set(range(6))
    assert all(150 < count < 250 for count in counts.values())  # 200 expected


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("all", range(6)),
        ("anchors", (0, 1)),
        ("3", (3,)),
        ("0, 2,5", (0, 2, 5)),
        ("0,2x3", (0, 2, 2, 2)),
        ("1-3", (1, 2, 3)),
        ("4-5x2,0-0", (4, 5, 4, 5, 0)),
    ],
)
def test_stitches_are_named_by_word_or_by_id(text: str, ids: range) -> None:
    assert [stitch.id for stitch in drawable(SNNet(TINY), text)] == list(ids)


@pytest.mark.parametrize("text", ["", "some", "1,,2", "1.5", "6", "-1", "1xx", "2x-1", "2x0", "3-", "3-6", "5-3", "²"])
def test_other_stitches_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^stitches: '.*' is none of all"):
        drawable(SNNet(TINY), text)


def test_groups_are_drawn_evenly_however_many_are_in_one() -> None:
    stitches = SNNet(TINY).stitches
    drawn = Counter(draw((stitches[:1], stitches[1:]), 0, 0, step).id for step in range(1200))
    assert 500 < drawn[0] < 700
    assert all(80 < drawn[stitch.id] < 160 for stitch in stitches[1:])  # 120 expected


def test_groups_of_like_flops_are_the_published_ones() -> None:
    with torch.device("meta"):
        model = SNNet(FAMILIES["deit3_s_l"])
    found = groups(model, drawable(model, "all"), 1e9)
    assert [sorted(stitch.id for stitch in group) for group in found] == recipe.stored("v2_ros_groups_s_l")
    assert groups(model, drawable(model, "all"), None) == (drawable(model, "all"),)


def test_a_stitch_without_a_block_in_its_last_segment_is_never_drawn() -> None:
    with torch.device("meta"):
        model = SNNet(FAMILIES["deit3_s_b"])
    assert {stitch.id for stitch in drawable(model, "all")} == set(range(135)) - {13}
