"""The named families: anchors, stitching rule, quirks and preprocessing, as data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class AnchorSpec:
    """One anchor: its short name in routes, its timm model, and that model's arguments."""

    name: str
    timm: str
    arguments: Mapping[str, int | float | bool | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a network's input, in timm's terms.

    `size` in pixels; `crop` is timm's crop_pct; `mean` and `std` per RGB channel, of values in [0, 1].
    """

    size: int = 224
    crop: float = 0.875
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


@dataclass(frozen=True)
class Family:
    """Anchors from small to large and the rule that joins them.

    `kernel` and `stride` shape the paired sliding window; with `nearest` only neighbouring anchors are joined.
    `norm_after_stitch`: whether a stitched route ends with the last anchor's final norm. The released DeiT
    SN-Nets (v1) skip it, which their published FLOPs confirm; anchors run alone always apply it.
    """

    name: str
    anchors: tuple[AnchorSpec, ...]
    classes: int
    kernel: int = 2
    stride: int = 1
    nearest: bool = True
    norm_after_stitch: bool = True
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    @property
    def anchor_names(self) -> tuple[str, ...]:
        """The anchors' short names, small to large."""
        return tuple(anchor.name for anchor in self.anchors)

    def config(self) -> dict[str, object]:
        """The family as plain JSON values, for a checkpoint's metadata."""
        return asdict(self)


def _digits_anchor(name: str, width: int, heads: int) -> AnchorSpec:
    shape = {"img_size": 64, "patch_size": 8, "depth": 8, "embed_dim": width, "num_heads": heads}
    # timm's "jax" first weights (Xavier) suit narrow networks; its default of 0.02 hardly leaves chance here.
    return AnchorSpec(name, "vit_tiny_patch16_224", {**shape, "weight_init": "jax"})


_DEIT = tuple(AnchorSpec(f"deit_{short}", f"deit_{size}_patch16_224") for short, size in
              [("ti", "tiny"), ("s", "small"), ("b", "base")])  # fmt: skip

_DIGITS = Family(
    name="digits",
    anchors=(_digits_anchor("digits_s", 24, 2), _digits_anchor("digits_m", 48, 3), _digits_anchor("digits_l", 96, 6)),
    classes=100,
    preprocessing=Preprocessing(size=64, crop=1.0, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
)

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        _DIGITS,
        Family("deit_ti_s_b", _DEIT, classes=1000, norm_after_stitch=False),
        Family("deit_ti_s_b_all", _DEIT, classes=1000, nearest=False, norm_after_stitch=False),
    )
}


def families() -> tuple[str, ...]:
    """The names of the families this version knows."""
    return tuple(FAMILIES)


def family(name: str) -> Family:
    """The family of that name; ValueError lists the names that exist."""
    if name not in FAMILIES:
        raise ValueError(f"unknown family {name!r}; known: {', '.join(FAMILIES)}")
    return FAMILIES[name]
