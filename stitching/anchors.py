"""An anchor: a timm network cut into the steps a stitch walks: stem, blocks, head."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
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

    `owns`: the modules whose parameters the papers count for this step; `entry`: what brings the features to a new
    stage's resolution before its first block, which they count in a route's last segment alone.
    """

    name: str
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
    `bare_head` is the head without the final norm, where the network has one to leave out.
    """

    net: Any
    stem: Step
    blocks: tuple[Step, ...]
    head: Step
    bare_head: Step | None
    stages: tuple[int, ...]
    widths: tuple[int, ...]
    layout: Layout

    @property
    def depth(self) -> int:
        """How many blocks the anchor has."""
        return len(self.blocks)


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


def _cut_vit(name: str, net: Any) -> Anchor:
    def embed(images: Tensor) -> Tensor:
        tokens = net._pos_embed(net.patch_embed(images))  # (N, 1 + patches, width)
        return net.norm_pre(net.patch_drop(tokens))  # type: ignore[no-any-return]

    def norm_and_classify(tokens: Tensor) -> Tensor:
        return net.forward_head(net.norm(tokens))  # type: ignore[no-any-return]

    owns = (net.norm, net.fc_norm, net.head)
    return Anchor(
        net,
        Step(f"{name}.stem", embed, (net.patch_embed,)),
        _blocks(name, [(net.blocks, ())]),
        Step(f"{name}.head", norm_and_classify, owns),
        Step(f"{name}.bare_head", net.forward_head, owns),
        (len(net.blocks),),
        (net.embed_dim,) * (len(net.blocks) + 1),
        "tokens",
    )


def _cut_swin(name: str, net: Any) -> Anchor:
    def norm_and_classify(features: Tensor) -> Tensor:
        return net.forward_head(net.norm(features))  # type: ignore[no-any-return]

    return _staged(
        name, net, [(stage.blocks, _present(stage.downsample)) for stage in net.layers], "nhwc",
        stem=Step(f"{name}.stem", net.patch_embed, (net.patch_embed,)),
        head=Step(f"{name}.head", norm_and_classify, (net.norm, net.head)),
    )  # fmt: skip


def _cut_levit(name: str, net: Any) -> Anchor:
    def embed(images: Tensor) -> Tensor:
        features = net.stem(images)
        return features if net.use_conv else features.flatten(2).transpose(1, 2)  # type: ignore[no-any-return]

    heads = tuple(getattr(net, head) for head in ("head", "head_dist") if hasattr(net, head))
    return _staged(
        name, net, [(stage.blocks, _present(stage.downsample)) for stage in net.stages],
        "nchw" if net.use_conv else "tokens",
        stem=Step(f"{name}.stem", embed, (net.stem,)),
        head=Step(f"{name}.head", net.forward_head, heads),
    )  # fmt: skip


def _cut_resnet(name: str, net: Any) -> Anchor:
    def embed(images: Tensor) -> Tensor:
        return net.maxpool(net.act1(net.bn1(net.conv1(images))))  # type: ignore[no-any-return]

    return _staged(
        name, net, [(stage, ()) for stage in (net.layer1, net.layer2, net.layer3, net.layer4)], "nchw",
        stem=Step(f"{name}.stem", embed, (net.conv1, net.bn1)),
        head=Step(f"{name}.head", net.forward_head, (net.global_pool, net.fc)),
    )  # fmt: skip


def _cut_convnext(name: str, net: Any) -> Anchor:
    def norm_and_classify(features: Tensor) -> Tensor:
        return net.forward_head(net.norm_pre(features))  # type: ignore[no-any-return]

    return _staged(
        name, net, [(stage.blocks, _present(stage.downsample)) for stage in net.stages], "nchw",
        stem=Step(f"{name}.stem", net.stem, (net.stem,)),
        head=Step(f"{name}.head", norm_and_classify, (net.norm_pre, net.head)),
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
    steps: list[Step] = []
    for blocks, entry in stages:
        for index, block in enumerate(blocks):
            before = () if index else entry
            run = nn.Sequential(*before, block) if before else block
            steps.append(Step(f"{name}.blocks.{len(steps)}", run, (block,), before))
    return tuple(steps)


def _present(module: nn.Module) -> tuple[nn.Module, ...]:
    return () if isinstance(module, nn.Identity) else (module,)
