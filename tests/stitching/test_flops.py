"""FLOPs and parameters of every stitch, against the published integers and fvcore's own count."""

import warnings
from collections.abc import Iterator

import pytest
import recipe
import torch
from small_families import SMALL, with_recipe_weights
from timm.layers import set_fused_attn, use_fused_attn
from torch import Tensor, nn

from stitching.families import FAMILIES
from stitching.flops import flops, params
from stitching.model import SNNet
from stitching.stitch import Stitch

with warnings.catch_warnings(action="ignore"):  # it compiles parts with torch.jit on import
    from fvcore.nn import FlopCountAnalysis


def without_weights(name: str) -> SNNet:
    with torch.device("meta"):
        return SNNet(FAMILIES[name])


@pytest.mark.parametrize(
    ("name", "results"), [("deit_ti_s_b", "results_deit"), ("deit_ti_s_b_all", "results_deit_nonearest")]
)
def test_flops_and_parameters_are_the_published_integers(name: str, results: str) -> None:
    model, published = without_weights(name), recipe.stored(results)
    assert flops(model) == [row["flops"] for row in published]
    assert [params(model, stitch) for stitch in model.stitches] == [row["params"] for row in published]


def test_the_stitches_asked_for_are_counted_in_their_order() -> None:
    model = without_weights("deit_ti_s_b")
    assert flops(model, [model.stitches[2], model.stitches[0]]) == [17_582_740_224, 1_258_411_200]


class Fixed(nn.Module):
    """A model of one stitch, for a counter that passes images alone."""

    def __init__(self, model: SNNet, stitch: Stitch) -> None:
        super().__init__()
        self.model, self.stitch = model, stitch

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images, self.stitch)  # type: ignore[no-any-return]


@pytest.fixture
def plain_attention() -> Iterator[None]:
    """fvcore does not see into a fused kernel; timm decides when a network is built."""
    before = use_fused_attn()
    set_fused_attn(False)
    yield
    set_fused_attn(bool(before))


@pytest.mark.usefixtures("plain_attention")
@pytest.mark.parametrize("stitch", [0, 2, 3, 36, 41, 70])
def test_fvcore_counts_the_same(stitch: int) -> None:
    model = with_recipe_weights(SMALL)
    with warnings.catch_warnings(action="ignore"):  # the tracer's
        analysis = FlopCountAnalysis(Fixed(model, model.stitches[stitch]), recipe.images((1, 3, 32, 32)))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        assert flops(model, [model.stitches[stitch]]) == [analysis.total()]


def test_counting_leaves_the_network_as_it_was() -> None:
    model = with_recipe_weights(SMALL).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    flops(model)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
