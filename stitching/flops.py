"""FLOPs and parameters of a stitch, by the papers' conventions.

FLOPs are multiply-adds as fvcore counts them for one image: convolutions, linear layers and matrix products by their
multiply-adds, a LayerNorm as 5 per output element, a BatchNorm as 2, the average over a channels-first picture as 1 per
input element; softmax, activations and additions are not counted.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stitching.model import SNNet
from stitching.stitch import Stitch


def _per_element(flops: int) -> Callable[..., int]:
    def count(input_shape: Sequence[int], *_: Any, **__: Any) -> int:
        return 2 * flops * torch.Size(input_shape).numel()  # the counter counts a multiply-add as 2

    return count


def _pooling(input_shape: Sequence[int], dims: Sequence[int] | None, *_: Any, **__: Any) -> int:
    # AdaptiveAvgPool2d to one pixel arrives as this mean; means over tokens are not counted.
    return _per_element(1)(input_shape) if len(input_shape) == 4 and list(dims or ()) == [-1, -2] else 0


COUNTED: dict[Any, Callable[..., int]] = {
    torch.ops.aten.native_layer_norm: _per_element(5),
    torch.ops.aten.native_batch_norm: _per_element(2),
    torch.ops.aten._native_batch_norm_legit_no_training: _per_element(2),
    torch.ops.aten.cudnn_batch_norm: _per_element(2),
    torch.ops.aten.mean: _pooling,
}
"""What is counted beside what torch counts by itself."""


def flops(model: SNNet, stitches: Sequence[Stitch] | None = None) -> list[int]:
    """FLOPs of each stitch (all by default) for one image."""
    return list(map(sum, step_flops(model, stitches)))


@torch.no_grad()
def step_flops(model: SNNet, stitches: Sequence[Stitch] | None = None) -> list[list[int]]:
    """The same for each step of each stitch, in the order of its path; a step is run once per input shape."""
    weight = next(model.parameters())
    size = model.family.preprocessing.size
    images = torch.zeros(1, 3, size, size, device=weight.device, dtype=weight.dtype)
    measured: dict[tuple[str, torch.Size], tuple[int, torch.Tensor]] = {}
    totals: list[list[int]] = []
    training = model.training
    model.eval()  # in training a BatchNorm would take the zeros for data
    for stitch in model.stitches if stitches is None else stitches:
        costs, x = [], images
        for step in model.path(stitch):
            key = (step.name, x.shape)
            if key not in measured:
                measured[key] = _measure(step.run, x)
            cost, x = measured[key]
            costs.append(cost)
        totals.append(costs)
    model.train(training)
    return totals


def _measure(call: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> tuple[int, torch.Tensor]:
    # Plain attention, since a fused kernel hides its two matrix products from the counter.
    with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter, sdpa_kernel(SDPBackend.MATH):
        out = call(x)
    return counter.get_total_flops() // 2, out


def params(model: SNNet, stitch: Stitch) -> int:
    """Parameters of one stitch as the papers count them.

    An anchor counts whole. A stitched route counts the first anchor's stem, the blocks and stitching layers it runs and
    the last anchor's head with its final norm (used or not), but no class token or position embedding, and
    down-sampling between stages in its last segment alone.
    """
    if stitch.is_anchor:
        return sum(p.numel() for p in model.anchors[stitch.segments[0].anchor].parameters())
    *_, last = segments = model.segments(stitch)
    counted = [module for segment in segments for step in segment for module in step.owns]
    counted += [module for step in last for module in step.entry]
    return sum(p.numel() for module in counted for p in module.parameters())
