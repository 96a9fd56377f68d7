"""A timm network cut into stem, blocks and head."""

from typing import Any

import pytest
import recipe
import torch
from small_families import SMALL_SWIN, anchor

from stitching.anchors import Step, build_anchor
from stitching.families import AnchorSpec

# A timm network of each kind that has seams: stages, widths between blocks, layout.
KINDS: dict[str, tuple[dict[str, Any], tuple[int, ...], tuple[int, ...], str]] = {
    "resnet10t": ({}, (1, 1, 1, 1), (64, 64, 128, 256, 512), "nchw"),
    "resnet18": ({}, (2, 2, 2, 2), (64, 64, 64, 128, 128, 256, 256, 512, 512), "nchw"),
    "levit_128s": ({}, (2, 3, 4), (128, 128, 128, 256, 256, 256, 384, 384, 384, 384), "tokens"),
    "levit_conv_128s": ({}, (2, 3, 4), (128, 128, 128, 256, 256, 256, 384, 384, 384, 384), "nchw"),
    "convnext_atto": ({"depths": (1, 2, 1, 1)}, (1, 2, 1, 1), (40, 40, 80, 80, 160, 320), "nchw"),
    "swin_tiny_patch4_window7_224": (
        {"depths": (1, 2, 1, 1), "embed_dim": 16, "num_heads": (1, 2, 2, 2)},
        (1, 2, 1, 1), (16, 16, 32, 32, 64, 128), "nhwc",
    ),
    "vit_tiny_patch16_224": ({"depth": 3}, (3,), (192,) * 4, "tokens"),
    "deit3_small_patch16_224": ({"depth": 2}, (2,), (384,) * 3, "tokens"),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
@torch.inference_mode()
def test_stem_blocks_and_head_in_a_row_are_the_timm_network(name: str) -> None:
    arguments, stages, widths, layout = KINDS[name]
    seam = build_anchor(AnchorSpec("a", name, arguments), classes=7, drop_path=0.0)
    seam.net.eval()
    images = recipe.images((2, 3, 224, 224))
    features = [seam.stem(images)]
    for block in seam.blocks:
        features.append(block(features[-1]))
    assert torch.equal(seam.head(features[-1]), seam.net(images))
    assert (seam.stages, seam.widths, seam.layout) == (stages, widths, layout)
    assert seam.depth == sum(stages)
    assert tuple(f.shape[1 if layout == "nchw" else -1] for f in features) == widths


@torch.inference_mode()
def test_a_bare_head_is_the_head_without_its_norm() -> None:
    seam = build_anchor(anchor("a", 24, depth=1), classes=7, drop_path=0.0)
    tokens = recipe.images((2, 17, 24))
    assert seam.bare_head
    assert torch.equal(seam.bare_head(seam.net.norm(tokens)), seam.head(tokens))


def test_drop_path_is_active_in_training_only() -> None:
    seam = build_anchor(anchor("a", 8, depth=2), classes=3, drop_path=0.9)
    x = recipe.images((1, 17, 8)).repeat(64, 1, 1)
    training = seam.net.train().blocks[1](x)
    evaluating = seam.net.eval().blocks[1](x)
    assert len(training.unique(dim=0)) > 1  # some rows dropped, some not
    assert len(evaluating.unique(dim=0)) == 1


def test_steps_are_the_same_when_their_names_are() -> None:
    assert Step("a", "k", torch.relu, ()) == Step("a", "l", torch.neg, ())
    assert hash(Step("a", "k", torch.relu, ())) == hash(Step("a", "l", torch.neg, ()))
    assert Step("a", "k", torch.relu, ()) != Step("b", "k", torch.relu, ())


def test_blocks_built_alike_are_one_class_even_if_some_drop_paths() -> None:
    seam = build_anchor(anchor("a", 8, depth=3), classes=3, drop_path=0.3)
    assert {block.kind for block in seam.blocks} == {"a.block"}
    assert (seam.stem.kind, seam.head.kind, seam.bare_head and seam.bare_head.kind) == (
        "a.stem",
        "a.head",
        "a.bare_head",
    )


def test_blocks_of_other_weights_or_another_stage_are_another_class() -> None:
    swin = build_anchor(SMALL_SWIN.anchors[0], classes=3, drop_path=0.0)
    # Every other window is shifted, the first block of a stage halves the picture, the last stage is one window wide.
    assert [block.kind.removeprefix("swin0.block.") for block in swin.blocks] == [
        *("0", "1"), *("2", "3"), *("4", "5", "5", "5", "5", "5"), *("10", "11"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["vit_of_nowhere", "hf-hub:somebody/some-model"])
def test_a_model_that_timm_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"'a'.*no model '{name}'"):
        build_anchor(AnchorSpec("a", name), classes=3, drop_path=0.0)


@pytest.mark.parametrize("name", ["pretrained", "checkpoint_path", "num_classes"])
def test_arguments_that_bring_weights_or_are_decided_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"'a': argument '{name}' is not for a family to set"):
        build_anchor(AnchorSpec("a", "vit_tiny_patch16_224", {name: 1}), classes=3, drop_path=0.0)


@pytest.mark.parametrize(("name", "value"), [("num_heads", 5), ("depths", "deep"), ("act_layer", "nothing")])
def test_arguments_that_timm_refuses_are_named(name: str, value: int | str) -> None:
    with pytest.raises(ValueError, match=f"'a': 'vit_tiny_patch16_224' does not take .*{name}"):
        build_anchor(AnchorSpec("a", "vit_tiny_patch16_224", {name: value}), classes=3, drop_path=0.0)


def test_a_network_without_seams_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'a': 'test_efficientnet' is a EfficientNet; there are seams for VisionTr"):
        build_anchor(AnchorSpec("a", "test_efficientnet"), classes=3, drop_path=0.0)
