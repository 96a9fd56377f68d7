"""Anchors that do not fit together are refused before an image has to be answered."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_families import SMALL, SMALL_SWIN, TINY, small_v2, with_recipe_weights

import stitching
from server.cli import main
from stitching.checkpoint import save
from stitching.families import FAMILIES, AnchorSpec, Family, Preprocessing, family
from stitching.fitting import check_joins
from stitching.model import SNNet
from stitching.rules import Paired, Staged

VIT: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 8, "depth": 2, "num_heads": 2}

CONVNEXT: dict[str, Any] = {"depths": (1, 1, 2, 1), "dims": (8, 8, 16, 16), "stem_type": "patch"}


def vit(name: str, **changes: Any) -> AnchorSpec:
    return AnchorSpec(name, "vit_tiny_patch16_224", VIT | changes)


def convnext(name: str, **changes: Any) -> AnchorSpec:
    return AnchorSpec(name, "convnext_atto", {**CONVNEXT, **changes})


def duo(narrow: AnchorSpec, wide: AnchorSpec, rule: Paired | Staged | None = None) -> Family:
    return Family("duo", (narrow, wide), 3, rule=rule or Paired(), preprocessing=Preprocessing(size=32))


@pytest.mark.parametrize("fitting", [TINY, SMALL, SMALL_SWIN, small_v2(24), FAMILIES["digits"]], ids=lambda f: f.name)
def test_anchors_that_fit_are_left_as_they_were(fitting: Family) -> None:
    model = with_recipe_weights(fitting)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    check_joins(model.train())
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


MISFITS: dict[str, tuple[Family, str]] = {
    "patches": (
        duo(vit("narrow"), vit("wide", patch_size=16)),
        r"narrow\[0:1\]>wide\[0:2\] cannot be joined: 17 tokens lead to 5 tokens",
    ),
    "class token": (
        duo(vit("narrow"), vit("wide", class_token=False, global_pool="avg")), ".*: 17 tokens lead to 16 tokens"
    ),
    "strides": (
        duo(convnext("narrow"), convnext("wide", output_stride=8), Staged((2,))),
        r"narrow\[0:3\]>wide\[3:5\] cannot be joined: 2 x 2 pixels lead to 4 x 4 pixels",
    ),
    "a join over the end of a stage": (
        duo(convnext("narrow"), convnext("wide")),
        r"narrow\[0:2\]>wide\[0:5\] cannot be joined: 4 x 4 pixels lead to 8 x 8 pixels",
    ),
    "image size": (
        duo(vit("narrow"), vit("wide", img_size=64)),
        r"anchor 'wide' does not take images of 32 x 32 pixels \(Input height \(32\) doesn't match model \(64\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
def test_anchors_that_do_not_fit_are_refused_with_both_shapes(case: str) -> None:
    misfit, says = MISFITS[case]
    with pytest.raises(ValueError, match=rf"family 'duo': {says}"):
        check_joins(SNNet(misfit))


def test_layouts_without_a_way_between_them_name_the_anchors() -> None:
    shape: dict[str, Any] = {"img_size": 32, "window_size": 2, "depths": (1, 1, 2, 1)}
    swin = AnchorSpec("swin", "swin_tiny_patch4_window7_224", shape)
    with pytest.raises(ValueError, match=r"family 'duo': anchors 'swin' and 'conv': .*from .*nhwc to nchw"):
        SNNet(duo(swin, convnext("conv"), Staged((2,))))


def test_what_an_anchor_keeps_while_evaluating_is_forgotten() -> None:
    model = SNNet(FAMILIES["levit_192_256"]).eval()
    check_joins(model)
    model.load_state_dict(with_recipe_weights(FAMILIES["levit_192_256"]).state_dict())
    expected = with_recipe_weights(FAMILIES["levit_192_256"])
    images = torch.ones(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.equal(model(images, model.stitches[0]), expected(images, expected.stitches[0]))


TOML = """
name = "duo"
classes = 3
[[anchors]]
name = "narrow"
timm = "vit_tiny_patch16_224"
arguments = {img_size = 32, patch_size = 8, embed_dim = 8, depth = 2, num_heads = 2}
[[anchors]]
name = "wide"
timm = "vit_tiny_patch16_224"
arguments = {img_size = 32, patch_size = 16, embed_dim = 8, depth = 2, num_heads = 2}
[preprocessing]
size = 32
"""


def test_loading_and_building_refuse_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "duo.toml"
    path.write_text(TOML)
    save(SNNet(family(str(path))), tmp_path / "duo.safetensors")
    with pytest.raises(ValueError, match="17 tokens lead to 5 tokens"):
        stitching.load(str(path))
    with pytest.raises(SystemExit):
        main(["build", str(path), "--data", str(tmp_path)])
    assert "17 tokens lead to 5 tokens" in capsys.readouterr().err
