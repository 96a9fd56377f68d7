"""The network: the published answers at full size, and that it keeps no state between calls."""

import argparse
import copy
import itertools
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import recipe
import torch
from small_families import SMALL, SMALL_SWIN, TINY, anchor, with_recipe_weights
from torch import Tensor

import stitching
from stitching.families import FAMILIES, Family
from stitching.model import SNNet

PAIR_OF_INPUTS = recipe.images((2, 3, 224, 224))
LOGITS = recipe.arrays("logits_deit_seed20")["logits"]  # (71, 2, 1000)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SNNet]:
    """`deit_ti_s_b` at full size, from a file laid out as the released ones are."""
    path = tmp_path_factory.mktemp("released") / "snnet_deit.pth"
    weights = recipe.state(recipe.stored("keys_deit"))
    torch.save({"model": weights, "epoch": 49, "args": argparse.Namespace(lr=1e-4, model="snnet")}, path)
    yield stitching.load("deit_ti_s_b", checkpoint=path)
    path.unlink()


@pytest.fixture(scope="module")
def small() -> SNNet:
    return with_recipe_weights(SMALL)


@torch.inference_mode()
def test_a_released_checkpoint_gives_the_published_logits_in_all_71_stitches(released: SNNet) -> None:
    assert not released.training
    for stitch, expected in zip(released.stitches, LOGITS, strict=True):
        row = slice(stitch.id % 2, stitch.id % 2 + 1)
        torch.testing.assert_close(released(PAIR_OF_INPUTS[row], stitch), expected[row], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_a_mixed_batch_at_full_size_gives_the_published_logits(released: SNNet) -> None:
    ids = [0, 3, 24, 36, 36, 47, 1]
    rows = [1, 0, 1, 1, 0, 0, 0]
    logits = released(PAIR_OF_INPUTS[rows], [released.stitches[i] for i in ids])
    torch.testing.assert_close(logits, LOGITS[ids, rows], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("name", "keys"), [("deit_ti_s_b", "keys_deit"), ("deit_ti_s_b_all", "keys_deit_nonearest")])
def test_state_keys_and_shapes_are_the_released_ones(name: str, keys: str) -> None:
    with torch.device("meta"):
        model = SNNet(FAMILIES[name])
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == recipe.stored(keys)


@pytest.mark.parametrize("name", ["deit_ti_s_b", "deit_ti_s_b_all"])
def test_stitches_stand_at_their_published_ids(name: str) -> None:
    with torch.device("meta"):
        model = SNNet(FAMILIES[name])
    assert [stitch.id for stitch in model.stitches] == list(range({"deit_ti_s_b": 71, "deit_ti_s_b_all": 732}[name]))


@torch.inference_mode()
def moved_by_final_norms(family: Family) -> set[int]:
    """The stitches whose logits change with the anchors' final norms."""
    model, images = with_recipe_weights(family), recipe.images((1, 3, 32, 32))
    before = [model(images, stitch) for stitch in model.stitches]
    for seam in model.seams:
        seam.net.norm.bias.add_(1)
    return {stitch.id for stitch in model.stitches if not torch.equal(model(images, stitch), before[stitch.id])}


def test_stitched_routes_skip_the_last_norm_where_the_family_says_so() -> None:
    assert moved_by_final_norms(replace(TINY, norm_after_stitch=False)) == {0, 1}
    assert moved_by_final_norms(replace(TINY, norm_after_stitch=True)) == {0, 1, 2, 3, 4, 5}


def test_a_path_walks_stem_blocks_layer_blocks_head(small: SNNet) -> None:
    names = [step.name for step in small.path(small.stitches[70])]
    blocks = [f"s24.blocks.{i}" for i in range(12)]
    assert names == ["s24.stem", *blocks, "stitch_layers.1.10", "s32.blocks.11.last", "s32.bare_head"]
    assert [step.name for step in small.path(small.stitches[0])][-2:] == ["s16.blocks.11.last", "s16.head"]


@torch.inference_mode()
def test_threads_that_call_at_once_get_the_answers_of_one_alone(small: SNNet) -> None:
    images = recipe.images((2, 3, 32, 32))
    alone = [small(images, stitch) for stitch in small.stitches]

    def calls(seed: int) -> list[tuple[int, Tensor]]:
        ids = random.Random(seed).choices(range(71), k=25)
        with torch.inference_mode():
            return [(i, small(images, small.stitches[i])) for i in ids]

    with ThreadPoolExecutor(8) as pool:
        answers = list(itertools.chain.from_iterable(pool.map(calls, range(8))))
    assert len(answers) == 200
    assert all(torch.equal(logits, alone[stitch]) for stitch, logits in answers)


@torch.inference_mode()
def test_a_deep_copy_is_a_network_of_its_own() -> None:
    model, images = with_recipe_weights(TINY), recipe.images((2, 3, 32, 32))
    before = [model(images, stitch) for stitch in model.stitches]
    mixed = model(images, model.stitches[2:4])
    twin = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.zero_()
    for stitch in twin.stitches:
        assert torch.equal(twin(images, stitch), before[stitch.id])
        assert not torch.equal(model(images, stitch), before[stitch.id])
    assert torch.equal(twin(images, twin.stitches[2:4]), mixed)


def test_stitching_layers_are_a_class_for_each_pair_of_anchors(small: SNNet) -> None:
    kinds = {step.kind for stitch in small.stitches for step in small.path(stitch) if "stitch" in step.name}
    assert kinds == {"s16>s24", "s24>s32"}


def test_stitching_layers_of_other_widths_are_other_classes() -> None:
    with torch.device("meta"):
        model = SNNet(SMALL_SWIN)
    kind_of = {step.name: step.kind for stitch in model.stitches for step in model.path(stitch)}
    assert kind_of["stitch_layers.0.0.0"] == "swin0>swin1.0"
    assert kind_of["stitch_layers.1.0.0"] == "swin0>swin1.1"
    assert {kind for name, kind in kind_of.items() if name.startswith("stitch_layers.2.0")} == {"swin0>swin1.2"}


def test_gradients_reach_exactly_the_parameters_on_the_path() -> None:
    model = with_recipe_weights(TINY)
    model(recipe.images((2, 3, 32, 32)), model.stitches[3]).sum().backward()  # (0, 1): one block of each anchor
    reached = {key.rpartition(".")[0] for key, value in model.named_parameters() if value.grad is not None}
    assert {"anchors.0.blocks.0.mlp.fc1", "stitch_layers.0.0.transform", "anchors.1.blocks.1.mlp.fc1"} <= reached
    assert not any(key.startswith(("anchors.0.blocks.1", "anchors.1.blocks.0", "anchors.0.head")) for key in reached)


def test_anchors_of_different_depths_are_refused() -> None:
    uneven = replace(TINY, anchors=(anchor("a", 8, depth=2), anchor("b", 8, depth=3)))
    with pytest.raises(ValueError, match=r"'tiny'.*equal depth.*2, 3"):
        SNNet(uneven)
