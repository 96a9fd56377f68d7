"""Lean blocks do what the modules do, and what they cannot do is left to the modules."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_families import SMALL, SMALL_SWIN
from timm.layers import Mlp, SwiGLU
from timm.models.vision_transformer import Block, ResPostBlock
from torch import nn
from torch.testing import assert_close

from stitching.anchors import Anchor, build_anchor
from stitching.families import AnchorSpec
from stitching.lean import for_head, lean, streamline
from stitching.model import SNNet


def block(**options: object) -> Block:
    torch.manual_seed(0)
    made: Block = Block(32, 4, **({"qkv_bias": True} | options)).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made


@pytest.mark.parametrize(
    "options",
    [{}, {"qkv_bias": False}, {"init_values": 0.5}, {"proj_bias": False}, {"act_layer": lambda: nn.GELU("tanh")}],
    ids=["plain", "no qkv bias", "layer scale", "no output bias", "tanh"],
)
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_lean_block_gives_the_same_bits(options: dict[str, object], fused: bool, dtype: torch.dtype) -> None:
    whole = block(**options).to(dtype)
    whole.attn.fused_attn = fused
    run = lean(whole)
    assert run
    x = torch.randn(6, 17, 32, dtype=dtype)
    before = x.clone()
    with torch.inference_mode():
        assert torch.equal(run(x[1:5]), whole(x[1:5]))
    assert torch.equal(x, before)


class Twice(Mlp):  # type: ignore[misc]
    """Has the parts of an Mlp but does more with them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "make",
    [
        lambda: block(qk_norm=True),
        lambda: block(scale_attn_norm=True),
        lambda: block(act_layer=nn.ReLU),
        lambda: block(mlp_layer=SwiGLU),
        lambda: block(mlp_layer=Twice),
        lambda: ResPostBlock(32, 4),
        lambda: nn.Linear(32, 32),
    ],
    ids=["norm of q and k", "norm of the output", "ReLU", "SwiGLU", "another forward", "norm after", "no block"],
)
def test_other_blocks_stay_as_they_are(make: Callable[[], nn.Module]) -> None:
    assert lean(make()) is None


def small() -> SNNet:
    torch.manual_seed(0)
    return SNNet(SMALL).eval()


@torch.inference_mode()
def test_a_streamlined_model_gives_the_same_bits_alone_and_mixed() -> None:
    whole, model = small(), small()
    assert streamline(model, exactly=True) == 36
    assert not any(isinstance(step.run, nn.Module) for seam in model.seams for step in seam.blocks)
    images = torch.randn(5, 3, 32, 32)
    places = (0, 40, 2, 40, 70)
    for place in places:
        assert torch.equal(model(images, model.stitches[place]), whole(images, whole.stitches[place]))
    mixture = [model.stitches[place] for place in places]
    assert torch.equal(model(images, mixture), whole(images, mixture))


@torch.inference_mode()
def test_features_lie_as_the_modules_leave_them() -> None:
    whole, x = block(), torch.randn(6, 32, 17).transpose(1, 2)  # as patches do without a class token
    run = lean(whole)
    assert run
    assert run(x).stride() == whole(x).stride() != torch.empty(x.shape).stride()
    assert torch.equal(run(x), whole(x))


@torch.inference_mode()
def test_the_block_before_a_head_is_spared_what_that_does_not_look_at() -> None:
    whole, model = small(), small()
    streamline(model)
    images = torch.randn(5, 3, 32, 32)
    places = (0, 40, 2, 36, 70)  # 36 stitches behind the last block of the first anchor
    for place in places:
        assert_close(model(images, model.stitches[place]), whole(images, whole.stitches[place]))
    mixture = [model.stitches[place] for place in places]
    assert_close(model(images, mixture), whole(images, mixture))
    for seam in model.seams:
        assert seam.last
        assert seam.last.run(torch.randn(3, 17, seam.widths[-1])).shape == (3, 1, seam.widths[-1])


@pytest.mark.parametrize(
    "options",
    [{}, {"qkv_bias": False}, {"init_values": 0.5}, {"proj_bias": False}, {"reg_tokens": 3}],
    ids=["plain", "no qkv bias", "layer scale", "no output bias", "more tokens"],
)
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_a_head_sees_the_token_it_would_have_seen(options: dict[str, Any], fused: bool, dtype: torch.dtype) -> None:
    seam = anchor(**options)
    seam.net.blocks[-1].attn.fused_attn = fused
    seam.net.to(dtype)
    seam.net.head.float().register_forward_pre_hook(lambda _, inputs: tuple(x.float() for x in inputs))
    run = for_head(seam)
    assert run
    x = torch.randn(6, 17, 32, dtype=dtype)
    before, (part, all_) = x.clone(), (run(x[1:5]), seam.net.blocks[-1](x[1:5]))
    assert torch.equal(x, before)
    assert_close(part, all_[:, :1], rtol=0.02, atol=0.02 * all_.abs().max().item() if dtype != torch.float32 else 1e-4)
    assert part.shape == (4, 1, 32)


def anchor(kind: str = "vit_tiny_patch16_224", **options: Any) -> Anchor:
    torch.manual_seed(0)
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}
    seam = build_anchor(AnchorSpec("a", kind, shape | options), 10, 0.0)
    for parameter in seam.net.eval().parameters():
        nn.init.normal_(parameter, std=0.3)
    return seam


@pytest.mark.parametrize(
    ("kind", "options", "has_own"),
    [
        ("vit_tiny_patch16_224", {"global_pool": "avg"}, False),
        ("vit_tiny_patch16_224", {"global_pool": "map"}, False),
        ("deit_tiny_distilled_patch16_224", {}, True),
        ("vit_tiny_patch16_224", {"act_layer": "relu"}, True),
    ],
    ids=["average", "attention", "two tokens", "another block"],
)
@torch.inference_mode()
def test_a_head_that_looks_at_more_gets_all(kind: str, options: dict[str, Any], has_own: bool) -> None:
    seam = anchor(kind, **options)
    assert (seam.last is not None) == has_own
    if lean(seam.net.blocks[-1]):
        assert for_head(seam) is None
    model = small()
    model.seams = (seam,)
    streamline(model)
    (after,) = model.seams
    x = torch.randn(3, 18, 32)
    assert (after.last or after.blocks[-1]).run(x).shape == x.shape


def test_a_family_without_such_blocks_is_left_alone() -> None:
    model = SNNet(SMALL_SWIN)
    before = model.seams
    assert streamline(model) == 0
    assert model.seams == before
