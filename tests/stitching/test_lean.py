"""Lean blocks do what the modules do, bit for bit, and what they cannot do is left to the modules."""

from collections.abc import Callable

import pytest
import torch
from small_families import SMALL, SMALL_SWIN
from timm.layers import Mlp, SwiGLU
from timm.models.vision_transformer import Block, ResPostBlock
from torch import nn

from stitching.lean import lean, streamline
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
    assert streamline(model) == 36
    assert not any(isinstance(step.run, nn.Module) for seam in model.seams for step in seam.blocks)
    images = torch.randn(5, 3, 32, 32)
    places = (0, 40, 2, 40, 70)
    for place in places:
        assert torch.equal(model(images, model.stitches[place]), whole(images, whole.stitches[place]))
    mixture = [model.stitches[place] for place in places]
    assert torch.equal(model(images, mixture), whole(images, mixture))


def test_a_family_without_such_blocks_is_left_alone() -> None:
    model = SNNet(SMALL_SWIN)
    before = model.seams
    assert streamline(model) == 0
    assert model.seams == before
