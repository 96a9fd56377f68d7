"""The number format of the weights, and how attention is computed in it: what is fastest here, by measurement."""

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from server.trials import Clock, in_turns, samples
from stitching import SNNet
from stitching.lean import Run, lean

Setting = Literal["auto", "float32", "bfloat16", "float16"]

LEAST_GAIN = 1.05  # fewer bits cost a little accuracy, so they must save something
BATCHES = (1, 8)  # rows that are measured: a lone request, and a batch
TRIED_ON = 1  # rows of noise that must come through with finite logits


class Variant(NamedTuple):
    """A way to compute: the format of weights and features, and attention as plain products or timm's way."""

    dtype: torch.dtype
    plain_attention: bool = False

    @property
    def name(self) -> str:
        """The format's name."""
        return str(self.dtype).removeprefix("torch.")


FLOAT32 = Variant(torch.float32)
AS_SET = "as set"


class Choice(NamedTuple):
    """The variant, why, and how many times as fast as float32 it was where that was measured."""

    variant: Variant
    reason: str
    ratio: float | None = None


Seconds = Mapping[Variant, Sequence[float]]
"""For each variant how long a batch takes in all anchors one after another, for each of BATCHES."""


def choose(
    setting: Setting,
    device: torch.device,
    formats: Sequence[torch.dtype],
    measure: Callable[[Sequence[Variant]], Seconds],
) -> Choice:
    """The variant to take on a device that multiplies numbers in these 16-bit `formats` natively, most exact first.

    `auto`: on a GPU the first of them; on a processor the fastest of them and float32, as `measure` finds it; float32
    where there is none.
    """
    if setting != "auto":
        dtype: torch.dtype = getattr(torch, setting)
        # On a CPU timm's fused attention gains nothing from fewer bits, plain products do.
        return Choice(Variant(dtype, device.type == "cpu" and dtype != torch.float32), AS_SET)
    if not formats:
        return Choice(FLOAT32, "nothing here multiplies 16-bit numbers natively")
    if device.type == "cuda":
        return Choice(Variant(formats[0]), "the most exact format that the GPU's tensor cores take")
    variants = [Variant(dtype, plain) for dtype in formats for plain in (True, False)]
    return fastest(measure([FLOAT32, *variants]))


def fastest(seconds: Seconds) -> Choice:
    """The fastest of these for a batch that is no slower than float32 for one row; float32 if none gains enough."""
    alone, batch = seconds[FLOAT32]
    gains = {v: (alone / one, batch / many) for v, (one, many) in seconds.items() if v != FLOAT32}
    best = max(gains, key=lambda variant: (min(gains[variant][0], 1.0), gains[variant][1]))
    found = f"measured with {'plain' if best.plain_attention else 'fused'} attention: " + ", ".join(
        f"{gain:.2f} times as fast as float32 at {rows}" for gain, rows in zip(gains[best], BATCHES, strict=True)
    )
    if gains[best][0] >= 1.0 and gains[best][1] >= LEAST_GAIN:
        return Choice(best, found, gains[best][1])
    return Choice(FLOAT32, f"{best.name} does not gain everywhere ({found})", 1.0)


def convert(model: SNNet, variant: Variant) -> None:
    """Bring the model's weights into the variant, in place: there is one copy of them.

    Batch norm's statistics and the last layer, which gives the logits, stay in float32. Layer norm and softmax compute
    in float32 inside whatever the format.
    """
    _convert(model, variant)
    for seam in model.seams if variant.dtype != torch.float32 else ():
        for classifier in _classifiers(seam.net):
            classifier.float()
            classifier.register_forward_pre_hook(_widen)


def install(model: SNNet, device: torch.device, choice: Choice, formats: Sequence[torch.dtype]) -> Choice:
    """Convert the model, bring it to the device, and try it there; gives what it runs in at last.

    float16 ends at 65504. Where weights or features exceed that, it gives way to bfloat16, or to float32 where that is
    not among the device's `formats`; if it was asked for, that is a ValueError.
    """
    if choice.variant.dtype != torch.float16 or _fits(model):
        convert(model, choice.variant)
        model.to(device)
        if choice.variant.dtype != torch.float16 or _finite(model, device):
            return choice
    if choice.reason == AS_SET:
        raise ValueError("dtype: this family exceeds float16; take bfloat16 or float32")
    wider = torch.bfloat16 if torch.bfloat16 in formats else torch.float32
    variant = choice.variant._replace(dtype=wider)
    convert(model, variant)
    model.to(device)
    return Choice(variant, "weights or features exceed float16")


def _fits(model: SNNet) -> bool:
    largest = torch.finfo(torch.float16).max
    return all(bool(weight.abs().max() <= largest) for weight in model.parameters())


@torch.inference_mode()
def _finite(model: SNNet, device: torch.device) -> bool:
    """Whether noise comes through every anchor in float16."""
    size = model.family.preprocessing.size
    noise = torch.randn(TRIED_ON, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device, torch.float16)
    anchors = [stitch for stitch in model.stitches if stitch.is_anchor]
    return all(bool(model(noise, anchor).isfinite().all()) for anchor in anchors)


def measured(model: SNNet, variants: Sequence[Variant], clock: Clock = time.perf_counter) -> Seconds:
    """The seconds of each variant: a block of each width stands for all, the variants take turns, medians count."""
    total = {variant: [0.0] * len(BATCHES) for variant in variants}
    for step, features, count in samples(model, max(BATCHES)):
        block = nn.Sequential(*step.entry, *step.owns) if step.entry else step.owns[0]
        copies = {variant: _converted(block, variant) for variant in variants}
        for place, rows in enumerate(BATCHES):
            trials = {v: partial(copies[v], features[:rows].to(v.dtype)) for v in variants}
            for variant, seconds in in_turns(trials, clock).items():
                total[variant][place] += count * median(seconds)
    return total


def _converted(block: nn.Module, variant: Variant) -> Run:
    mine = copy.deepcopy(block)
    _convert(mine, variant)
    return lean(mine) or mine


def _convert(module: nn.Module, variant: Variant) -> None:
    # LeViT keeps its attention biases of eval mode, in the format they had; training mode drops them.
    module.train().to(variant.dtype).eval()
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.float()
        if variant.plain_attention and hasattr(part, "fused_attn"):
            part.fused_attn = False  # type: ignore[assignment]


def _classifiers(net: Any) -> Iterable[nn.Module]:
    found = net.get_classifier()
    return found if isinstance(found, tuple) else (found,)


def _widen(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.float() for x in inputs)
