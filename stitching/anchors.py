"""An anchor: a timm network cut into the steps a stitch walks: stem, blocks, head."""

from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from typing import Any, Literal

import timm
from timm.models import ConvNeXt, Levit, ResNet, SwinTransformer, VisionTransformer
from torch import Tensor, nn

from stitching.families import AnchorSpec

Layout = Literal["tokens", "nhwc", "nchw"]
"""How features lie between blocks: (N, tokens, width), (N, H, W, width) or (N, width, H, W)."""


@dataclass(frozen=True)
class Step:
    """One module call of a route. Two steps are the same step when their names are equal.

    `kind` names its module class: steps of one kind are built alike and take inputs of one shape, so that a batch takes
    equally long in each. `owns`: the modules whose parameters the papers count for this step; `entry`: what brings the
    features to a new stage's resolution before its first block, which they count in a route's last segment alone.
    """

    name: str
    kind: str = field(compare=False)
    run: Callable[[Tensor], Tensor] = field(compare=False)
    owns: tuple[nn.Module, ...] = field(compare=False)
    entry: tuple[nn.Module, ...] = field(compare=False, default=())

    def __call__(self, x: Tensor) -> Tensor:
        """Images or features in, features or logits out."""
        return self.run(x)


@dataclass(frozen=True)
class Anchor:
    """The seams of a timm network. Holds no weights of its own: they stay in `net`, under timm's names.

    Blocks are numbered through the stages, `stages` says how many each has, and a stage's down-sampling belongs to its
    first block. `widths[i]` is the width of the features before block i, the last one that after the last block.
    `bare_head` is the head without the final norm, where the network has one to leave out. `last` is the last block
    where the head follows it, if that looks at one token: a step of its own, as it then need not give the others.
    """

    net: Any
    stem: Step
    blocks: tuple[Step, ...]
    head: Step
    bare_head: Step | None
    stages: tuple[int, ...]
    widths: tuple[int, ...]
    layout: Layout
    last: Step | None = None

    @property
    def depth(self) -> int:
        """How many blocks the anchor has."""
        return len(self.blocks)

    def stage(self, block: int) -> int:
        """The stage that a block belongs to."""
        return bisect_right([*accumulate(self.stages)], block)


RESERVED = frozenset({"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir",
                      "num_classes", "drop_path_rate", "in_chans", "features_only"})  # fmt: skip
"""Arguments of timm's models that bring weights, or that something else decides."""


def build_anchor(spec: AnchorSpec, classes: int, drop_path: float) -> Anchor:
    """A timm model with fresh weights, ready to be cut. Raises ValueError for a model of another kind."""
    if not timm.is_model(spec.timm):  # also keeps hub addresses out
        raise ValueError(f"anchor {spec.name!r}: timm has no model {spec.timm!r}")
    if reserved := RESERVED & spec.arguments.keys():
        raise ValueError(f"anchor {spec.name!r}: argument {min(reserved)!r} is not for a family to set")
    arguments = {**spec.arguments, **({"drop_path_rate": drop_path} if drop_path else {})}
    try:
        net = timm.create_model(spec.timm, num_classes=classes, **arguments)
    except (TypeError, ValueError, LookupError, RuntimeError, AssertionError) as error:
        raise ValueError(f"anchor {spec.name!r}: {spec.timm!r} does not take {arguments} ({error})") from error
    for kind, cut in CUTS.items():
        if isinstance(net, kind):
            return cut(spec.name, net)
    kinds = ", ".join(kind.__name__ for kind in CUTS)
    raise ValueError(f"anchor {spec.name!r}: {spec.timm!r} is a {type(net).__name__}; there are seams for {kinds}")


def kinds(prefix: str, structures: Sequence[Hashable]) -> list[str]:
    """A class name for each module: `prefix`, and the number of the first one built alike where not all are.

    deit_ti.block for every block, but swin_ti.block.2 for block 2 and those built like it.
    """
    if len(set(structures)) == 1:
        return [prefix] * len(structures)
    return [f"{prefix}.{structures.index(structure)}" for structure in structures]


def structure(*modules: nn.Module) -> Hashable:
    """What modules are built of: the types that hold weights or buffers, with their shapes."""
    return tuple(
        (type(part).__qualname__, tuple(tuple(tensor.shape) for tensor in tensors))
        for module in modules
        for part in module.modules()
        if (tensors := [*part.parameters(recurse=False), *part.buffers(recurse=False)])
    )


# What a step runs is a module or a partial of its network, so that a deep copy of a model runs the copy's weights.


def _whole(name: str, run: Callable[[Tensor], Tensor], *owns: nn.Module) -> Step:
    """A step that is a class of its own."""
    return Step(name, name, run, owns)


def _embed_vit(net: Any, images: Tensor) -> Tensor:
    tokens = net._pos_embed(net.patch_embed(images))  # (N, 1 + patches, width)
    return net.norm_pre(net.patch_drop(tokens))  # type: ignore[no-any-return]


def _embed_levit(net: Any, images: Tensor) -> Tensor:
    features = net.stem(images)
    return features if net.use_conv else features.flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


def _embed_resnet(net: Any, images: Tensor) -> Tensor:
    return net.maxpool(net.act1(net.bn1(net.conv1(images))))  # type: ignore[no-any-return]


def _classify(net: Any, features: Tensor) -> Tensor:
    return net.forward_head(features)  # type: ignore[no-any-return]


def _norm_and_classify(net: Any, features: Tensor) -> Tensor:
    return net.forward_head(net.norm(features))  # type: ignore[no-any-return]


def _norm_pre_and_classify(net: Any, features: Tensor) -> Tensor:
    return net.forward_head(net.norm_pre(features))  # type: ignore[no-any-return]


def _cut_vit(name: str, net: Any) -> Anchor:
    owns = (net.norm, net.fc_norm, net.head)
    blocks = _blocks(name, [(net.blocks, ())])
    final = blocks[-1]
    last = replace(final, name=f"{final.name}.last", kind=f"{final.kind}.last")
    return Anchor(
        net,
        _whole(f"{name}.stem", partial(_embed_vit, net), net.patch_embed),
        blocks,
        _whole(f"{name}.head", partial(_norm_and_classify, net), *owns),
        _whole(f"{name}.bare_head", partial(_classify, net), *owns),
        (len(net.blocks),),
        (net.embed_dim,) * (len(net.blocks) + 1),
        "tokens",
        last if net.global_pool == "token" else None,
    )


def _cut_swin(name: str, net: Any) -> Anchor:
    return _staged(
        name, net, [(stage.blocks, _present(stage.downsample)) for stage in net.layers], "nhwc",
        stem=_whole(f"{name}.stem", net.patch_embed, net.patch_embed),
        head=_whole(f"{name}.head", partial(_norm_and_classify, net), net.norm, net.head),
    )  # fmt: skip


def _cut_levit(name: str, net: Any) -> Anchor:
    heads = tuple(getattr(net, head) for head in ("head", "head_dist") if hasattr(net, head))
    return _staged(
        name, net, [(stage.blocks, _present(stage.downsample)) for stage in net.stages],
        "nchw" if net.use_conv else "tokens",
        stem=_whole(f"{name}.stem", partial(_embed_levit, net), net.stem),
        head=_whole(f"{name}.head", partial(_classify, net), *heads),
    )  # fmt: skip


def _cut_resnet(name: str, net: Any) -> Anchor:
    return _staged(
        name, net, [(stage, ()) for stage in (net.layer1, net.layer2, net.layer3, net.layer4)], "nchw",
        stem=_whole(f"{name}.stem", partial(_embed_resnet, net), net.conv1, net.bn1),
        head=_whole(f"{name}.head", partial(_classify, net), net.global_pool, net.fc),
    )  # fmt: skip


def _cut_convnext(name: str, net: Any) -> Anchor:
    return _staged(
        name, net, [(stage.blocks, _present(stage.downsample)) for stage in net.stages], "nchw",
        stem=_whole(f"{name}.stem", net.stem, net.stem),
        head=_whole(f"{name}.head", partial(_norm_pre_and_classify, net), net.norm_pre, net.head),
    )  # fmt: skip


CUTS: Mapping[type[nn.Module], Callable[[str, Any], Anchor]] = {
    VisionTransformer: _cut_vit,
    SwinTransformer: _cut_swin,
    Levit: _cut_levit,
    ResNet: _cut_resnet,
    ConvNeXt: _cut_convnext,
}


Stage = tuple[Iterable[nn.Module], tuple[nn.Module, ...]]
"""The blocks of a stage, and what comes before its first one."""


def _staged(name: str, net: Any, stages: list[Stage], layout: Layout, *, stem: Step, head: Step) -> Anchor:
    depths = tuple(len(tuple(blocks)) for blocks, _ in stages)
    info = [feature["num_chs"] for feature in net.feature_info]  # of every stage; before them a ResNet's stem
    widths = [
        info[0],
        *(width for width, depth in zip(info[-len(depths) :], depths, strict=True) for _ in range(depth)),
    ]
    return Anchor(net, stem, _blocks(name, stages), head, None, depths, tuple(widths), layout)


def _blocks(name: str, stages: Iterable[Stage]) -> tuple[Step, ...]:
    parts = [
        (stage, () if index else entry, block)
        for stage, (blocks, entry) in enumerate(stages)
        for index, block in enumerate(blocks)
    ]
    # The stage stands for the resolution, which weights do not always tell.
    built = [(stage, structure(*before, block)) for stage, before, block in parts]
    return tuple(
        Step(f"{name}.blocks.{i}", kind, nn.Sequential(*before, block) if before else block, (block,), before)
        for i, (kind, (_, before, block)) in enumerate(zip(kinds(f"{name}.block", built), parts, strict=True))
    )


def _present(module: nn.Module) -> tuple[nn.Module, ...]:
    return () if isinstance(module, nn.Identity) else (module,)
