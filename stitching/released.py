"""Names and leftovers of released checkpoints: from the tensors of a file to those of a model made of timm's anchors.

What follows from the architecture (position indices, attention masks) is dropped and computed anew, never trusted.
"""

import re
from collections.abc import Callable, Mapping

from timm.models import Levit, SwinTransformer, VisionTransformer
from torch import Tensor, nn

from stitching.layers import folded

State = Mapping[str, Tensor]

RECOMPUTED = re.compile(r"(^|\.)(relative_position_index|attn_mask|attention_bias_idxs)$")
TRAINING_ONLY = re.compile(r"\.aux_bn\.\d+\.")
"""The second set of BatchNorm statistics that timm's split-bn training keeps."""


def timm_names(net: nn.Module, state: State) -> dict[str, Tensor]:
    """An anchor's tensors under the names that timm gives them now. ValueError where two would have the same name."""
    kept = {key: value for key, value in state.items() if not RECOMPUTED.search(key) and not TRAINING_ONLY.search(key)}
    rename = next((rename for kind, rename in RENAMES.items() if isinstance(net, kind)), None)
    if rename is None:
        return kept
    new_name = rename(net, kept)
    renamed = {new_name(key): value for key, value in kept.items()}
    if len(renamed) != len(kept):
        twice = next(key for key in kept if new_name(key) != key and new_name(key) in kept)
        raise ValueError(f"keys {twice!r} and {new_name(twice)!r} are two names of one tensor")
    return renamed


def adapted(anchors: nn.ModuleList, state: State) -> dict[str, Tensor]:
    """A whole SN-Net's tensors as a model without LoRA has them: names of today, corrections folded into weights.

    ValueError, naming the key, for what cannot be.
    """
    state = {key.removeprefix("module."): value for key, value in state.items()}
    result = {key: value for key, value in state.items() if not key.startswith("anchors.")}
    for index, net in enumerate(anchors):
        prefix = f"anchors.{index}."
        mine = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        result |= {prefix + key: value for key, value in timm_names(net, mine).items()}
    known = tuple(f"anchors.{index}." for index in range(len(anchors)))
    result |= {key: value for key, value in state.items() if key.startswith("anchors.") and not key.startswith(known)}
    return without_lora(result)


def as_released(state: State) -> dict[str, Tensor]:
    """A trained network's tensors as a file holds them: without a second set of norms, corrections folded in."""
    return without_lora({key: value for key, value in state.items() if not TRAINING_ONLY.search(key)})


def without_lora(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with every correction folded into its weight. ValueError, naming the key, where it does not fit."""
    for key in [key for key in state if key.endswith(".lora_A")]:
        stem = key.removesuffix(".lora_A")
        if f"{stem}.lora_B" not in state or f"{stem}.weight" not in state:
            raise ValueError(f"key {key!r} is there without {stem}.lora_B and {stem}.weight")
        lora_a, lora_b = state.pop(key), state.pop(f"{stem}.lora_B")
        try:
            state[f"{stem}.weight"] = folded(state[f"{stem}.weight"], lora_a, lora_b)
        except ValueError as error:
            raise ValueError(f"key {key!r}: {error}") from error
    return state


def _vit(_: nn.Module, __: State) -> Callable[[str], str]:
    return lambda key: re.sub(r"^(blocks\.\d+)\.gamma_([12])$", r"\1.ls\2.gamma", key)


def _swin(_: nn.Module, state: State) -> Callable[[str], str]:
    if not any(key.startswith("layers.0.downsample.") for key in state):
        return lambda key: key

    # The original has the down-sampling at a stage's end, timm at the next one's beginning.
    def rename(key: str) -> str:
        key = re.sub(r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample.", key)
        return re.sub(r"^head\.(weight|bias)$", r"head.fc.\1", key)

    return rename


def _levit(net: nn.Module, state: State) -> Callable[[str], str]:
    if not any(key.startswith("patch_embed.") for key in state):
        return lambda key: key
    places: dict[int, str] = {}
    for stage, layer in enumerate(net.stages):  # type: ignore[arg-type]
        if stage:
            places[len(places)] = f"stages.{stage}.downsample.attn_downsample"
            places[len(places)] = f"stages.{stage}.downsample.mlp"
        for block in range(len(layer.blocks)):
            places[len(places)] = f"stages.{stage}.blocks.{block}.attn"
            places[len(places)] = f"stages.{stage}.blocks.{block}.mlp"

    # Two flat modules a block in the original, and two for what lies between stages.
    def rename(key: str) -> str:
        key = re.sub(r"^patch_embed\.([0246])\.", lambda m: f"stem.conv{int(m[1]) // 2 + 1}.", key)
        if match := re.match(r"blocks\.(\d{1,4})\.(?:m\.)?", key):
            place = places.get(int(match[1]), match[0].removesuffix("."))
            key = f"{place}.{key[match.end() :]}"
        key = re.sub(r"\.mlp\.([02])\.", lambda m: f".mlp.ln{int(m[1]) // 2 + 1}.", key)
        key = re.sub(r"\.(proj|q)\.1\.", r".\1.ln.", key)
        return re.sub(r"\.(c|l)\.weight$", ".linear.weight", re.sub(r"\.l\.bias$", ".linear.bias", key))

    return rename


Rename = Callable[[nn.Module, State], Callable[[str], str]]
RENAMES: Mapping[type[nn.Module], Rename] = {VisionTransformer: _vit, SwinTransformer: _swin, Levit: _levit}
