"""FLOPs and parameters of a stitch, by the papers' conventions.

FLOPs are multiply-adds as fvcore counts them for one image: convolutions, linear layers and matrix products by their
multiply-adds, a LayerNorm as 5 per output element; softmax, GELU and additions are not counted.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stitching.model import SNNet
from stitching.stitch import Stitch


def _layer_norm_flops(input_shape: Sequence[int], *_: Any, **__: Any) -> int:
    # The counter counts a multiply-add as 2, so fvcore's 5 per element is 10 here.
    return 10 * int(torch.Size(input_shape).numel())


_EXTRA: dict[Any, Callable[..., int]] = {torch.ops.aten.native_layer_norm: _layer_norm_flops}


@torch.no_grad()
def flops(model: SNNet, stitches: Sequence[Stitch] | None = None) -> list[int]:
    """FLOPs of each stitch (all by default) for one image; every step is run once per input shape and remembered."""
    weight = next(model.parameters())
    size = model.family.preprocessing.size
    images = torch.zeros(1, 3, size, size, device=weight.device, dtype=weight.dtype)
    measured: dict[tuple[str, torch.Size], tuple[int, torch.Tensor]] = {}
    totals = []
    for stitch in model.stitches if stitches is None else stitches:
        total, x = 0, images
        for step in model.path(stitch):
            key = (step.name, x.shape)
            if key not in measured:
                measured[key] = _measure(step.run, x)
            cost, x = measured[key]
            total += cost
        totals.append(total)
    return totals


def _measure(call: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> tuple[int, torch.Tensor]:
    # Plain attention, since a fused kernel hides its two matrix products from the counter.
    with FlopCounterMode(display=False, custom_mapping=_EXTRA) as counter, sdpa_kernel(SDPBackend.MATH):
        out = call(x)
    return counter.get_total_flops() // 2, out


def params(model: SNNet, stitch: Stitch) -> int:
    """Parameters of one stitch as the papers count them.

    An anchor counts whole. A stitched route counts the first anchor's patch embedding, the blocks and stitching layers
    it runs and the last anchor's head with its final norm (used or not), but no class token or position embedding.
    """
    if stitch.is_anchor:
        return sum(p.numel() for p in model.anchors[stitch.segments[0].anchor].parameters())
    return sum(p.numel() for step in model.path(stitch) for module in step.owns for p in module.parameters())
