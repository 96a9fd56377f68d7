"""The stitching layer: the learned map from one anchor's features to another's."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stitching.anchors import Layout


class StitchingLayer(nn.Module):
    """A linear map with bias on every token or pixel, the class token included; no norm, no activation.

    Features that lie as (N, width, H, W) are mapped by a 1x1 convolution, and laid as (N, H, W, width) where the end
    anchor wants them so. With `rank` the map is W + BA / rank, as SN-Net v2 trains it. Raises ValueError for layouts
    between which features cannot be carried over.
    """

    def __init__(self, width_in: int, width_out: int, front: Layout = "tokens", end: Layout = "tokens", rank: int = 0):
        super().__init__()
        if front != end and (front, end) != ("nchw", "nhwc"):
            raise ValueError(f"no stitching layer leads from features in layout {front} to {end}")
        self.permutes = front != end
        self.transform: nn.Linear | nn.Conv2d
        if front == "nchw":
            self.transform = nn.Conv2d(width_in, width_out, 1)
        elif rank:
            self.transform = LoRALinear(width_in, width_out, rank)
        else:
            self.transform = nn.Linear(width_in, width_out)

    def forward(self, features: Tensor) -> Tensor:
        """Front features (N, ..., width_in) or (N, width_in, H, W) -> what the end anchor goes on with."""
        mapped: Tensor = self.transform(features)
        return mapped.permute(0, 2, 3, 1) if self.permutes else mapped

    @torch.no_grad()
    def set(self, weight: Tensor, bias: Tensor) -> None:
        """Take over a weight (width_out, width_in) and a bias (width_out,)."""
        self.transform.weight.copy_(weight.view_as(self.transform.weight))
        self.transform.bias.copy_(bias)  # type: ignore[union-attr]


class LoRALinear(nn.Linear):
    """A linear map whose frozen weight is corrected by BA / rank (Hu et al., 2022); A, B and the bias are trained."""

    def __init__(self, width_in: int, width_out: int, rank: int) -> None:
        super().__init__(width_in, width_out)
        self.weight.requires_grad_(False)
        self.lora_A = nn.Parameter(torch.empty(rank, width_in))
        self.lora_B = nn.Parameter(torch.zeros(width_out, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, features: Tensor) -> Tensor:
        """(..., width_in) -> (..., width_out)."""
        return super().forward(features) + F.linear(F.linear(features, self.lora_A), self.lora_B) / len(self.lora_A)


def folded(weight: Tensor, lora_a: Tensor, lora_b: Tensor) -> Tensor:
    """The plain weight (out, in) that equals a weight with its correction A (rank, in), B (out, rank).

    Raises ValueError for shapes that do not fit together.
    """
    if lora_a.ndim != 2 or lora_b.ndim != 2 or lora_b.shape[1] != lora_a.shape[0] or not len(lora_a):
        raise ValueError(f"lora_A {tuple(lora_a.shape)} and lora_B {tuple(lora_b.shape)} have no common rank")
    if (lora_b.shape[0], lora_a.shape[1]) != tuple(weight.shape):
        raise ValueError(f"lora_B lora_A does not have the shape {tuple(weight.shape)} of the weight")
    return weight.float() + lora_b.float() @ lora_a.float() / len(lora_a)
