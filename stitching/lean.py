"""A vision transformer's block without the ceremony of its modules: the same operations, called directly.

In a small network at small batches the modules' own calls, some twenty to a block, take as long as the arithmetic.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from stitching.model import SNNet

Run = Callable[[Tensor], Tensor]

TRIED_ON = 2, 5  # rows and tokens of noise


def streamline(model: SNNet) -> int:
    """Have a model, from now on only evaluated, run its blocks lean where there is a way; gives how many.

    They keep the weights they find: the model is not to be converted or moved afterwards.
    """
    count = 0
    for place, seam in enumerate(model.seams):
        runs = [lean(step.run) if isinstance(step.run, nn.Module) else None for step in seam.blocks]
        blocks = tuple(replace(step, run=run or step.run) for step, run in zip(seam.blocks, runs, strict=True))
        model.seams = (*model.seams[:place], replace(seam, blocks=blocks), *model.seams[place + 1 :])
        count += sum(run is not None for run in runs)
    return count


@torch.inference_mode()
def lean(block: nn.Module) -> Run | None:
    """What a block does to features (N, tokens, width), bit for bit, as a function; None for a block of another kind.

    Whether it is of that kind is found by trying: on noise both must give the same.
    """
    if not isinstance(block, Block):
        return None
    block.eval()
    weight = block.norm1.weight
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(*TRIED_ON, len(weight), generator=generator).to(weight.device, weight.dtype)
    try:
        run = _lean(block)
        same = torch.equal(run(noise), block(noise))
    except (AttributeError, TypeError, RuntimeError):  # parts that others have, or lack
        return None
    return run if same else None


def _lean(block: Any) -> Run:
    attend, perceive = _attention(block.attn, _gamma(block.ls1)), _perceptron(block.mlp, _gamma(block.ls2))
    first, second = _norm(block.norm1), _norm(block.norm2)

    def run(x: Tensor) -> Tensor:
        x = attend(first(x)).add_(x)
        return perceive(second(x)).add_(x)

    return run


def _attention(attention: Any, gamma: Tensor | None) -> Run:
    heads, width, scale, fused = attention.num_heads, attention.head_dim, attention.scale, attention.fused_attn
    weight, bias = attention.qkv.weight, attention.qkv.bias
    out_weight, out_bias = attention.proj.weight, attention.proj.bias

    def run(x: Tensor) -> Tensor:
        rows, tokens, _ = x.shape
        qkv = F.linear(x, weight, bias).view(rows, tokens, 3, heads, width).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # (N, heads, tokens, width)
        x = F.scaled_dot_product_attention(q, k, v) if fused else _products(q.mul_(scale), k, v)
        x = F.linear(x.transpose(1, 2).reshape(rows, tokens, heads * width), out_weight, out_bias)
        return x if gamma is None else x.mul_(gamma)

    return run


def _products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1)).softmax(dim=-1) @ v


def _perceptron(mlp: Any, gamma: Tensor | None) -> Run:
    weight, bias, out_weight, out_bias = mlp.fc1.weight, mlp.fc1.bias, mlp.fc2.weight, mlp.fc2.bias
    approximate, gelu_ = mlp.act.approximate, torch.ops.aten.gelu_.default

    def run(x: Tensor) -> Tensor:
        x = F.linear(gelu_(F.linear(x, weight, bias), approximate=approximate), out_weight, out_bias)
        return x if gamma is None else x.mul_(gamma)

    return run


def _norm(norm: Any) -> Run:
    shape, weight, bias, eps = norm.normalized_shape, norm.weight, norm.bias, norm.eps

    def run(x: Tensor) -> Tensor:
        return F.layer_norm(x, shape, weight, bias, eps)

    return run


def _gamma(scale: Any) -> Tensor | None:
    return None if isinstance(scale, nn.Identity) else scale.gamma
