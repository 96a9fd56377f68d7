"""The families: anchors, stitching rule, quirks and preprocessing, as data. Named ones here, others in users' files."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic import Field as Limits

from stitching.rules import Paired, Rule, Staged, TwoWay

Name = Annotated[str, Limits(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
Finite = Annotated[float, Limits(allow_inf_nan=False)]
Positive = Annotated[float, Limits(gt=0, allow_inf_nan=False)]
FILES = (".toml", ".json")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class AnchorSpec:
    """One anchor: its short name in routes, its timm model, and that model's arguments."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: Name
    timm: str
    arguments: Mapping[str, int | float | bool | str | tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a network's input, in timm's terms.

    `size` in pixels; `crop` is timm's crop_pct; `mean` and `std` per RGB channel, of values in [0, 1].
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    size: Annotated[int, Limits(ge=1, le=4096)] = 224
    crop: Annotated[float, Limits(gt=0, le=1)] = 0.875
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    mean: tuple[Finite, Finite, Finite] = IMAGENET_MEAN
    std: tuple[Positive, Positive, Positive] = IMAGENET_STD


@dataclass(frozen=True)
class Family:
    """Anchors from small to large and the rule that joins them.

    `norm_after_stitch`: whether a stitched route ends with the last anchor's final norm. The released DeiT
    SN-Nets (v1) skip it, which their published FLOPs confirm; anchors run alone always apply it.
    `lora_rank`: stitching layers are trained as a frozen map and a correction of this rank (SN-Net v2); 0 trains them
    whole. Once loaded they are plain maps.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: Name
    anchors: Annotated[tuple[AnchorSpec, ...], Limits(min_length=2, max_length=100)]
    classes: Annotated[int, Limits(ge=1, le=1_000_000)]
    rule: Annotated[Rule, Limits(discriminator="kind")] = field(default_factory=Paired)
    norm_after_stitch: bool = True
    lora_rank: int = 0
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
# The articles join anchors that were trained on ImageNet-22k first; timm's plain names mean others.
_SWIN = tuple(AnchorSpec(f"swin_{short}", f"swin_{size}_patch4_window7_224.ms_in22k_ft_in1k") for short, size in
              [("ti", "tiny"), ("s", "small"), ("b", "base")])  # fmt: skip
_DEIT3 = {short: AnchorSpec(f"deit3_{short}", f"deit3_{size}_patch16_224.fb_in22k_ft_in1k") for short, size in
          [("s", "small"), ("b", "base"), ("l", "large")]}  # fmt: skip
_LEVIT = tuple(AnchorSpec(f"levit_{width}", f"levit_{width}") for width in (192, 256))
_RESNET18, _RESNET50 = AnchorSpec("resnet18", "resnet18"), AnchorSpec("resnet50", "resnet50")
_SWIN_IN1K = AnchorSpec("swin_ti", "swin_tiny_patch4_window7_224.ms_in1k")


def _v2(small: str, large: str) -> Family:
    return Family(
        f"deit3_{small}_{large}", (_DEIT3[small], _DEIT3[large]), classes=1000, rule=TwoWay(), lora_rank=64,
        preprocessing=Preprocessing(crop=1.0),
    )  # fmt: skip


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
        Family("deit_ti_s_b_all", _DEIT, classes=1000, rule=Paired(nearest=False), norm_after_stitch=False),
        Family("swin_ti_s_b", _SWIN, classes=1000, rule=Staged((0, 1, 2))),
        Family("levit_192_256", _LEVIT, classes=1000, rule=Staged((0, 1))),
        Family("resnet18_50", (_RESNET18, _RESNET50), classes=1000, rule=Staged((1, 2))),
        Family("resnet18_swin_ti", (_RESNET18, _SWIN_IN1K), classes=1000, rule=Staged((1, 2))),
        _v2("s", "b"),
        _v2("s", "l"),
        _v2("b", "l"),
    )
}

_SNNET = "https://github.com/ziplab/SN-Net/releases/download"
_SNNET_V2 = "https://github.com/ziplab/SN-Netv2/releases/download/1.0"

RELEASES: Mapping[str, str] = {
    "deit_ti_s_b": f"{_SNNET}/v1.0/snnet_deit.pth",
    "swin_ti_s_b": f"{_SNNET}/v1.0/snnet_swin.pth",
    "resnet18_50": f"{_SNNET}/v1.1/resnet_18_50.pth",
    "resnet18_swin_ti": f"{_SNNET}/v1.1/resnet18_swin_ti.pth",
    "levit_192_256": f"{_SNNET}/v1.2/levit_192_256_release.pth",
    **{f"deit3_{pair}": f"{_SNNET_V2}/snnetv2_deit3_{pair}.pth" for pair in ("s_b", "s_l", "b_l")},
}
"""Where the authors' checkpoints lie."""


def families() -> tuple[str, ...]:
    """The names of the families this version knows."""
    return tuple(FAMILIES)


def family(name: str) -> Family:
    """The family of that name, or the one that a .toml or .json file of that path describes.

    ValueError lists the names that exist, or says what is wrong in the file.
    """
    if name in FAMILIES:
        return FAMILIES[name]
    if name.endswith(FILES):
        return _from_file(Path(name))
    raise ValueError(f"unknown family {name!r}; known: {', '.join(FAMILIES)}, or the path of a .toml or .json file")


def beside(name: str) -> Path | None:
    """Where what belongs to a family's file lies: the file's path without its ending; None for a named family."""
    return None if name in FAMILIES or not name.endswith(FILES) else Path(name).with_suffix("")


def _from_file(path: Path) -> Family:
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
        described: Family = TypeAdapter(Family).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(f"{path}: {where}: {first['msg']}") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error
    if described.name in FAMILIES:
        raise ValueError(f"{path}: name: {described.name!r} is a family that exists; choose another")
    return described
