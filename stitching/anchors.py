"""An anchor: a timm network cut into the steps a stitch walks: stem, blocks, head."""

from collections.abc import Callable
from dataclasses import dataclass, field

import timm
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from stitching.families import AnchorSpec


@dataclass(frozen=True)
class Step:
    """One module call of a route. Two steps are the same step when their names are equal.

    `owns`: the modules whose parameters the papers count for this step.
    """

    name: str
    run: Callable[[Tensor], Tensor] = field(compare=False)
    owns: tuple[nn.Module, ...] = field(compare=False)

    def __call__(self, x: Tensor) -> Tensor:
        """Images or features in, features or logits out."""
        return self.run(x)


class ViTAnchor:
    """The seams of a timm VisionTransformer. Holds no weights of its own: they stay in `net`, under timm's names."""

    def __init__(self, spec: AnchorSpec, net: VisionTransformer) -> None:
        self.net = net
        self.width = int(net.embed_dim)
        self.stem = Step(f"{spec.name}.stem", self._embed, (net.patch_embed,))
        self.blocks = tuple(Step(f"{spec.name}.blocks.{i}", block, (block,)) for i, block in enumerate(net.blocks))
        self.head = Step(f"{spec.name}.head", self._norm_and_classify, (net.norm, net.fc_norm, net.head))
        self.bare_head = Step(f"{spec.name}.bare_head", self._classify, self.head.owns)

    @property
    def depth(self) -> int:
        """How many blocks the anchor has."""
        return len(self.blocks)

    def _embed(self, images: Tensor) -> Tensor:
        tokens = self.net._pos_embed(self.net.patch_embed(images))  # (N, 1 + patches, width)
        return self.net.norm_pre(self.net.patch_drop(tokens))  # type: ignore[no-any-return]

    def _norm_and_classify(self, tokens: Tensor) -> Tensor:
        return self._classify(self.net.norm(tokens))

    def _classify(self, tokens: Tensor) -> Tensor:
        return self.net.forward_head(tokens)  # type: ignore[no-any-return]


def build_anchor(spec: AnchorSpec, classes: int, drop_path: float) -> ViTAnchor:
    """A timm model with fresh weights, ready to be cut. Raises ValueError for a model that is no plain ViT."""
    if not timm.is_model(spec.timm):  # also keeps hub addresses out
        raise ValueError(f"anchor {spec.name!r}: timm has no model {spec.timm!r}")
    net = timm.create_model(spec.timm, num_classes=classes, drop_path_rate=drop_path, **spec.arguments)
    if not isinstance(net, VisionTransformer):
        raise ValueError(f"anchor {spec.name!r}: {spec.timm!r} is no timm VisionTransformer")
    return ViTAnchor(spec, net)
