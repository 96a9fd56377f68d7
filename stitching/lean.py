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

from stitching.anchors import Anchor
from stitching.model import SNNet

Run = Callable[[Tensor], Tensor]
Split = Callable[[Tensor], tuple[Tensor, ...]]
"""Features (N, tokens, width) -> queries, keys and values, each (N, heads, tokens, width of a head)."""

TRIED_ON = 2, 5  # rows and tokens of noise


def streamline(model: SNNet, *, exactly: bool = False) -> int:
    """Have a model, from now on only evaluated, run its blocks lean where there is a way; gives how many.

    They keep the weights they find: the model is not to be converted or moved afterwards. Last blocks before a head
    are spared the tokens that it does not look at, which rounds otherwise: not if all bits are to be kept `exactly`.
    """
    count = 0
    for place, seam in enumerate(model.seams):
        runs = [lean(step.run) if isinstance(step.run, nn.Module) else None for step in seam.blocks]
        blocks = tuple(replace(step, run=run or step.run) for step, run in zip(seam.blocks, runs, strict=True))
        last = seam.last
        if last and runs[-1]:
            last = replace(last, run=runs[-1] if exactly else for_head(seam) or runs[-1])
        model.seams = (*model.seams[:place], replace(seam, blocks=blocks, last=last), *model.seams[place + 1 :])
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
    noise = _noise(block)
    try:
        run = _lean(block)
        same = torch.equal(run(noise), block(noise))
    except (AttributeError, TypeError, RuntimeError):  # parts that others have, or lack
        return None
    return run if same else None


@torch.inference_mode()
def for_head(anchor: Anchor) -> Run | None:
    """What an anchor's last block, which has a lean way, gives of its first token, (N, 1, width), up to rounding.

    None where a head looks at others, which is found by trying too.
    """
    block, heads = anchor.net.blocks[-1], [step.run for step in (anchor.head, anchor.bare_head) if step]
    noise, run = _noise(block), _lean(block, first=True)
    rounding = torch.finfo(noise.dtype).eps ** 0.5
    try:
        one, all_ = run(noise), block(noise)
        pairs = [(one, all_[:, :1]), *((head(one), head(all_)) for head in heads)]
        same = all((a - b).float().norm() <= rounding * b.float().norm() for a, b in pairs)
    except (IndexError, RuntimeError):  # a head for a token that is not there
        return None
    return run if same else None


def _noise(block: Any) -> Tensor:
    weight = block.norm1.weight
    noise = torch.randn(*TRIED_ON, len(weight), generator=torch.Generator().manual_seed(0))
    return noise.to(weight.device, weight.dtype)


def _lean(block: Any, *, first: bool = False) -> Run:
    """What the block gives of all tokens, or of the first alone."""
    attend = _attention(block.attn, _gamma(block.ls1), (_of_first if first else _of_all)(block.attn))
    perceive = _perceptron(block.mlp, _gamma(block.ls2))
    norm, second_norm = _norm(block.norm1), _norm(block.norm2)

    def run(x: Tensor) -> Tensor:
        x = _sum(attend(norm(x)), x[:, :1] if first else x)
        return _sum(perceive(second_norm(x)), x)

    return run


def _sum(change: Tensor, x: Tensor) -> Tensor:
    """Both added, in place unless the sum is to lie in memory as `x` does: later operations round by that."""
    return change.add_(x) if x.is_contiguous() else x + change


def _attention(attention: Any, gamma: Tensor | None, split: Split) -> Run:
    scale, fused = attention.scale, attention.fused_attn
    weight, bias = attention.proj.weight, attention.proj.bias

    def run(x: Tensor) -> Tensor:
        q, k, v = split(x)
        x = F.scaled_dot_product_attention(q, k, v) if fused else _products(q.mul_(scale), k, v)
        x = F.linear(x.transpose(1, 2).flatten(2), weight, bias)
        return x if gamma is None else x.mul_(gamma)

    return run


def _of_all(attention: Any) -> Split:
    heads, width = attention.num_heads, attention.head_dim
    weight, bias = attention.qkv.weight, attention.qkv.bias

    def split(x: Tensor) -> tuple[Tensor, ...]:
        rows, tokens, _ = x.shape
        return F.linear(x, weight, bias).view(rows, tokens, 3, heads, width).permute(2, 0, 3, 1, 4).unbind(0)

    return split


def _of_first(attention: Any) -> Split:
    """The first token's query alone."""
    heads, width = attention.num_heads, attention.head_dim
    size, bias = heads * width, attention.qkv.bias
    asking, asked = attention.qkv.weight[:size], attention.qkv.weight[size:]
    asking_bias, asked_bias = (None, None) if bias is None else (bias[:size], bias[size:])

    def split(x: Tensor) -> tuple[Tensor, ...]:
        rows, tokens, _ = x.shape
        q = F.linear(x[:, 0], asking, asking_bias).view(rows, heads, 1, width)
        return q, *F.linear(x, asked, asked_bias).view(rows, tokens, 2, heads, width).permute(2, 0, 3, 1, 4).unbind(0)

    return split


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
