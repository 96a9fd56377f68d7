"""A timm network cut into stem, blocks and head."""

import pytest
import recipe
import torch
from small_families import TINY, anchor, with_recipe_weights

from stitching.anchors import Step, build_anchor
from stitching.families import AnchorSpec


@torch.inference_mode()
def test_stem_blocks_and_head_in_a_row_are_the_timm_network() -> None:
    model, images = with_recipe_weights(TINY), recipe.images((3, 3, 32, 32))
    for seam in model.seams:
        x = seam.stem(images)
        assert x.shape == (3, 5, seam.width)
        for block in seam.blocks:
            x = block(x)
        assert torch.equal(seam.head(x), seam.net(images))
        assert torch.equal(seam.bare_head(seam.net.norm(x)), seam.head(x))


def test_depth_and_width_are_the_networks() -> None:
    seam = build_anchor(anchor("a", 24, depth=5), classes=7, drop_path=0.0)
    assert (seam.depth, seam.width) == (5, 24)
    assert seam.net.head.out_features == 7


def test_drop_path_is_active_in_training_only() -> None:
    seam = build_anchor(anchor("a", 8, depth=2), classes=3, drop_path=0.9)
    x = recipe.images((1, 17, 8)).repeat(64, 1, 1)
    training = seam.net.train().blocks[1](x)
    evaluating = seam.net.eval().blocks[1](x)
    assert len(training.unique(dim=0)) > 1  # some rows dropped, some not
    assert len(evaluating.unique(dim=0)) == 1


def test_steps_are_the_same_when_their_names_are() -> None:
    assert Step("a", torch.relu, ()) == Step("a", torch.neg, ())
    assert hash(Step("a", torch.relu, ())) == hash(Step("a", torch.neg, ()))
    assert Step("a", torch.relu, ()) != Step("b", torch.relu, ())


@pytest.mark.parametrize("name", ["vit_of_nowhere", "hf-hub:somebody/some-model"])
def test_a_model_that_timm_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"'a'.*no model '{name}'"):
        build_anchor(AnchorSpec("a", name), classes=3, drop_path=0.0)


def test_a_network_that_is_no_plain_vision_transformer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'a'.*'resnet18' is no timm VisionTransformer"):
        build_anchor(AnchorSpec("a", "resnet18"), classes=3, drop_path=0.0)
