"""Which rows run which step together, and that no row notices."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import recipe
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_families import SMALL, SMALL_SWIN, anchor, small_v2, with_recipe_weights
from torch import Tensor

from stitching.enumeration import paired_stitches
from stitching.families import Family, Preprocessing
from stitching.model import SNNet
from stitching.rules import Paired, TwoWay
from stitching.stitch import Stitch
from stitching.wavefront import order, run_mixed, schedule

DEIT = paired_stitches(12, 3, 2, 1, nearest=True)
acyclic = st.lists(st.sets(st.integers(0, 9)).map(sorted), max_size=8)
"""Paths whose steps rise: no two of them wait for each other."""
anyhow = st.lists(st.lists(st.integers(0, 6), max_size=6), max_size=6)


def steps(stitch: Stitch) -> list[str]:
    """The names of a stitch's module calls."""
    names = [f"stem{stitch.segments[0].anchor}"]
    for segment, layer in zip(stitch.segments, [*stitch.layers, None], strict=True):
        names += [f"block{segment.anchor}.{i}" for i in range(segment.start, segment.stop)]
        names += [] if layer is None else [f"layer{layer}"]
    return [*names, f"head{stitch.segments[-1].anchor}{stitch.is_anchor}"]


def walked(paths: Sequence[Sequence[object]]) -> list[list[object]]:
    """What each path runs, read off the common order."""
    calls = order(paths)
    return [[step for step, members in calls if index in members] for index in range(len(paths))]


@settings(deadline=None)
@given(anyhow)
def test_every_path_runs_its_own_steps_in_order(paths: list[list[int]]) -> None:
    assert walked(paths) == paths
    assert all(members for _, members in order(paths))


@settings(deadline=None)
@given(acyclic)
def test_a_step_runs_once_with_everybody_who_needs_it(paths: list[list[int]]) -> None:
    calls = order(paths)
    assert Counter(step for step, _ in calls) == Counter({step for path in paths for step in path})
    for step, members in calls:
        assert members == {index for index, path in enumerate(paths) if step in path}


def test_each_module_of_the_deit_family_is_called_once_for_all_71_stitches() -> None:
    paths = [steps(stitch) for stitch in DEIT]
    assert len(order(paths)) == len({step for path in paths for step in path})


def test_32_rows_over_the_frontier_need_far_fewer_calls_than_alone() -> None:
    flops = {row["id"]: row["flops"] for row in recipe.stored("results_deit")}
    top1 = {row["id"]: row["acc1"] for row in recipe.stored("results_deit")}
    cheaper = {a: [b for b in flops if flops[b] <= flops[a] and b != a] for a in flops}
    frontier = [a for a in flops if all(top1[b] < top1[a] for b in cheaper[a])]
    assert len(frontier) == 39
    paths = [steps(DEIT[stitch]) for stitch in frontier[:: len(frontier) // 32][:32]]
    assert len(order(paths)) < sum(map(len, paths)) / 5


def test_paths_that_wait_for_one_another_still_all_finish() -> None:
    there_and_back = [["a", "b", "c"], ["b", "a", "c"], ["b", "a", "c"]]
    assert walked(there_and_back) == there_and_back
    # The most go first, and the circle costs no more than running one step twice.
    assert order(there_and_back)[0] == ("b", frozenset({1, 2}))
    assert len(order(there_and_back)) == 4


@pytest.fixture(scope="module")
def small() -> SNNet:
    return with_recipe_weights(SMALL)


def mixed(images: Tensor, paths: Sequence[Sequence[Callable[[Tensor], Tensor]]]) -> Tensor:
    """A batch with one path per row, those of equal paths in one group."""
    rows: dict[tuple[Callable[[Tensor], Tensor], ...], list[int]] = {}
    for row, path in enumerate(paths):
        rows.setdefault(tuple(path), []).append(row)
    return run_mixed(images, list(rows.values()), schedule(list(rows)), lambda step, x, _: step(x))


class Counting:
    """A step that remembers how many rows it was called with."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.rows: list[int] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.rows.append(len(x))
        return x * self.factor + 1


def test_shared_steps_are_called_once_with_all_their_rows() -> None:
    first, second, third = Counting(2), Counting(3), Counting(5)
    out = mixed(torch.arange(4.0), [(first, third), (second, third), (first, third), (first, second, third)])
    assert (first.rows, second.rows, third.rows) == ([3], [2], [4])
    assert out.tolist() == [6.0, 21.0, 26.0, 111.0]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_rows_come_back_in_their_places_whatever_the_mixture(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 7))
    kinds = [Counting(factor) for factor in (1.0, 2.0, 3.0, -1.0)]
    path = st.lists(st.sampled_from(kinds), min_size=1, max_size=5)
    paths = data.draw(st.lists(path, min_size=rows, max_size=rows))
    images = torch.arange(float(rows * 2)).reshape(rows, 2)
    expected = images.clone()
    for row, own in enumerate(paths):
        for step in own:
            expected[row] = step(expected[row : row + 1])[0]
    assert torch.equal(mixed(images, paths), expected)


def test_a_mixed_batch_answers_each_row_as_if_alone(small: SNNet) -> None:
    ids = [*torch.randperm(71, generator=torch.Generator().manual_seed(1)).tolist(), 3, 3, 70, 0]
    stitches = [small.stitches[i] for i in ids]
    images = recipe.images((len(ids), 3, 32, 32))
    with torch.inference_mode():
        together = small(images, stitches)
        alone = torch.cat([small(images[row : row + 1], stitch) for row, stitch in enumerate(stitches)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


PATCHES = st.sampled_from([8, 16])
WIDTHS = st.sampled_from([8, 12, 16])


@st.composite
def families(draw: st.DrawFn) -> Family:
    """A family of two or three tiny vision transformers, stitched one way or both."""
    patch, depth = draw(PATCHES), draw(st.integers(1, 3))
    two_way = draw(st.booleans())
    depths = [depth, depth * draw(st.integers(1, 2))] if two_way else [depth] * draw(st.integers(2, 3))
    anchors = tuple(anchor(f"a{i}", draw(WIDTHS), depth, patch=patch) for i, depth in enumerate(depths))
    rule = TwoWay() if two_way else Paired(draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.booleans()))
    size = Preprocessing(size=32)
    return Family("drawn", anchors, 5, rule=rule, norm_after_stitch=draw(st.booleans()), preprocessing=size)


@settings(deadline=None, max_examples=40)
@given(families(), st.data())
def test_in_any_family_a_row_answers_as_if_alone(family: Family, data: st.DataObject) -> None:
    torch.manual_seed(0)
    model = SNNet(family).eval()
    whole = [stitch for stitch in model.stitches if stitch.is_whole]
    stitches = data.draw(st.lists(st.sampled_from(whole), min_size=1, max_size=9))
    images = recipe.images((len(stitches), 3, 32, 32))
    with torch.inference_mode():
        together = model(images, stitches)
        alone = torch.cat([model(images[row : row + 1], stitch) for row, stitch in enumerate(stitches)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "family",
    [SMALL, replace(SMALL, rule=Paired(nearest=False)), SMALL_SWIN, small_v2(24)],
    ids=lambda f: str(f.rule.kind),
)
def test_in_every_kind_of_family_all_stitches_together_call_each_module_once(family: Family) -> None:
    with torch.device("meta"):
        model = SNNet(family)
    paths = [model.path(stitch) for stitch in model.stitches if stitch.is_whole]
    plan = schedule(paths)
    assert len(plan.calls) == len({step for path in paths for step in path})


def test_rows_are_copied_only_where_they_come_together(small: SNNet) -> None:
    plan = schedule([small.path(stitch) for stitch in small.stitches])
    for call in plan.calls:
        if "stitch_layers" not in call.step.name and len(call.parts) > 1:
            assert len({part.source for part in call.parts}) > 1
    blocks = [call for call in plan.calls if ".blocks." in call.step.name]
    joined = {join.end: set[int]() for join in small.joins}
    for join in small.joins:
        joined[join.end].add(join.start)
    # Into each of these blocks rows come from outside; the others take a slice of what the block before gave.
    assert sum(len(call.parts) > 1 for call in blocks) <= sum(map(len, joined.values()))


def test_what_is_not_needed_any_more_is_let_go(small: SNNet) -> None:
    plan = schedule([small.path(stitch) for stitch in small.stitches[::5]])
    freed = [source for call in plan.calls for source in call.done]
    assert len(freed) == len(set(freed))
    assert set(freed) | {part.source for part in plan.outputs} == {-1, *range(len(plan.calls))}
    for number, call in enumerate(plan.calls):
        gone = {source for earlier in plan.calls[:number] for source in earlier.done}
        assert not gone & {part.source for part in call.parts}


def test_an_output_passes_on_where_the_next_call_alone_takes_all_of_it(small: SNNet) -> None:
    assert all(call.passing for call in schedule([small.path(small.stitches[9])]).calls)
    plan = schedule([small.path(stitch) for stitch in small.stitches[::5]])
    following = [*(call.parts for call in plan.calls[1:]), plan.outputs]
    takers = Counter(part.source for parts in [*(call.parts for call in plan.calls), plan.outputs] for part in parts)
    for number, (call, after) in enumerate(zip(plan.calls, following, strict=True)):
        assert call.passing == (takers[number] == 1 and [part.source for part in after] == [number])
    assert 0 < sum(call.passing for call in plan.calls) < len(plan.calls)


def test_one_stitch_in_every_row_is_the_ordinary_batch(small: SNNet) -> None:
    images = recipe.images((5, 3, 32, 32))
    with torch.inference_mode():
        assert torch.equal(small(images, [small.stitches[9]] * 5), small(images, small.stitches[9]))


def test_the_order_of_rows_makes_no_difference(small: SNNet) -> None:
    stitches = [small.stitches[i] for i in (40, 3, 70, 3, 0, 12)]
    images = recipe.images((6, 3, 32, 32))
    with torch.inference_mode():
        forwards, backwards = small(images, stitches), small(images.flip(0), stitches[::-1]).flip(0)
    torch.testing.assert_close(forwards, backwards, atol=1e-6, rtol=0)


def test_a_batch_needs_one_stitch_per_row(small: SNNet) -> None:
    with pytest.raises(ValueError, match="0 images but 0 stitches"):
        small(recipe.images((0, 3, 32, 32)), [])
    with pytest.raises(ValueError, match="3 images but 2 stitches"):
        small(recipe.images((3, 3, 32, 32)), small.stitches[:2])
