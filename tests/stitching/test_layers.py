import torch

from stitching.layers import StitchingLayer


def test_every_token_is_mapped_by_the_same_matrix_and_bias() -> None:
    layer = StitchingLayer(2, 3)
    with torch.no_grad():
        layer.transform.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]]))
        layer.transform.bias.copy_(torch.tensor([0.0, 10.0, 100.0]))
    tokens = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    assert layer(tokens).tolist() == [[[1.0, 12.0, 99.0], [3.0, 14.0, 99.0]]]
