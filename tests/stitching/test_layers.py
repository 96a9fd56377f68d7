import pytest
import torch

from stitching.anchors import Layout
from stitching.layers import LoRALinear, StitchingLayer, folded

WEIGHT = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]])
BIAS = torch.tensor([0.0, 10.0, 100.0])


def test_every_token_is_mapped_by_the_same_matrix_and_bias() -> None:
    layer = StitchingLayer(2, 3)
    layer.set(WEIGHT, BIAS)
    tokens = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    assert layer(tokens).tolist() == [[[1.0, 12.0, 99.0], [3.0, 14.0, 99.0]]]


@pytest.mark.parametrize("end", ["nchw", "nhwc"])
def test_every_pixel_is_mapped_alike_and_laid_as_the_end_wants_it(end: Layout) -> None:
    layer = StitchingLayer(2, 3, "nchw", end)
    layer.set(WEIGHT, BIAS)
    picture = torch.randn(2, 2, 4, 5)
    expected = torch.einsum("oi,nihw->nohw", WEIGHT, picture) + BIAS[:, None, None]
    torch.testing.assert_close(layer(picture), expected if end == "nchw" else expected.permute(0, 2, 3, 1))


def test_layouts_that_cannot_be_joined_are_refused() -> None:
    with pytest.raises(ValueError, match="from features in layout tokens to nchw"):
        StitchingLayer(2, 3, "tokens", "nchw")


def test_a_correction_starts_at_nothing_and_folds_into_the_weight() -> None:
    layer = StitchingLayer(2, 3, rank=1)
    assert isinstance(layer.transform, LoRALinear)
    layer.set(WEIGHT, BIAS)
    tokens = torch.randn(2, 5, 2)
    torch.testing.assert_close(layer(tokens), tokens @ WEIGHT.T + BIAS)
    torch.nn.init.ones_(layer.transform.lora_B)
    weight = folded(WEIGHT, layer.transform.lora_A, layer.transform.lora_B)
    assert not torch.equal(weight, WEIGHT)
    torch.testing.assert_close(layer(tokens), tokens @ weight.T + BIAS)
