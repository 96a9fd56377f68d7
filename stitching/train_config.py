"""What a training run is, as data, and the published recipes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from stitching.families import family as named_family

_TAUGHT = {"teacher": "regnety_160.deit_in1k", "distillation": "hard", "alpha": 0.5}
_RANDAUGMENT = {"augment": "rand-m9-mstd0.5-inc1", "color_jitter": 0.4}
_TRANSFORMER = {
    **_TAUGHT, **_RANDAUGMENT, "init_images": 100, "batch": 128, "steps": 62_550, "warmup": 6_255, "optimizer": "adamw",
    "erase": 0.25, "mixup": 0.8, "cutmix": 1.0, "smoothing": 0.1,
}  # fmt: skip
_RESNET = {
    **_TAUGHT, **_RANDAUGMENT, "init_images": 100, "batch": 128, "steps": 37_530, "warmup": 6_255, "warmup_lr": 1e-5,
    "optimizer": "sgd", "lr": 0.05, "anchor_lr": 0.1, "min_lr": 0.0, "weight_decay": 2e-5, "erase": 0.6,
    "smoothing": 0.1, "split_bn": 2,
}  # fmt: skip

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "deit": {**_TRANSFORMER, "lr": 1e-4, "warmup_lr": 1e-7, "min_lr": 1e-6, "repeat": 3, "drop_path": (0.1,)},
    "swin": {
        **_TRANSFORMER, "lr": 1e-3, "anchor_lr": 0.1, "warmup_lr": 1e-6, "min_lr": 1e-5, "clip": 5.0,
        "drop_path": (0.2,),
    },
    "levit": {
        **_TRANSFORMER, "steps": 125_100, "lr": 1e-4, "warmup_lr": 1e-7, "min_lr": 1e-6, "weight_decay": 0.025,
        "clip": 0.01, "clip_mode": "agc", "repeat": 3,
    },
    "resnet": _RESNET,
    "v2": {
        "init_images": 100, "batch": 64, "steps": 125_100, "warmup": 12_510, "warmup_lr": 1e-7, "optimizer": "lamb",
        "lr": 3e-5, "min_lr": 1e-5, "weight_decay": 0.02, "augment": "3a", "color_jitter": 0.3, "crop_mode": "rkrc",
        "cutmix": 1.0, "smoothing": 0.1, "repeat": 3, "drop_path_rule": "constant", "flops_group": 1e9,
        "drop_path": {"deit3_s": 0.05, "deit3_b": 0.15, "deit3_l": 0.4},
    },
}  # fmt: skip
"""The articles' recipes for ImageNet on 8 processes, their epochs written as steps (batches of 8 x `batch` images).

A drop_path that differs by anchor is written by the anchors' names.
"""


class TrainConfig(BaseModel):
    """What a training run is. Two runs with equal configs on equal machines give equal weights.

    Rates and counts of steps are what they are: nothing is scaled by the number of processes or images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str = Field(description="family to train, or the .toml or .json file that describes one")
    preset: str | None = Field(None, description=f"published recipe to start from: {', '.join(PRESETS)}")
    data: str = Field(description="folder with train/<class>/* and val/<class>/*, or the built-in task 'digits'")
    out: Path = Field(description="folder for the run: last.pt to resume from, model.safetensors at the end")
    start: Path | None = Field(None, description="checkpoint of the whole family to start from")
    anchors: tuple[Path, ...] = Field((), description="one checkpoint per anchor, joined by least squares")
    pretrained: bool = Field(False, description="start from timm's pretrained anchors, joined by least squares")
    init_images: int = Field(1000, ge=1, description="images that the least-squares stitching layers are solved from")
    stitches: str = Field("all", description="drawn from, a stitch a step: all, anchors, ids, 3-24; 2x20 is 20 times 2")
    steps: int = Field(10_000, ge=1)
    batch: int = Field(128, ge=1, description="images per step and process")
    flops_group: float | None = Field(
        None, gt=0, description="draw among groups of stitches this many FLOPs wide first (SN-Net v2), then inside one"
    )
    optimizer: Literal["adamw", "sgd", "lamb"] = Field("adamw", description="sgd is with Nesterov momentum 0.9")
    lr: float = Field(1e-4, gt=0, description="peak learning rate")
    anchor_lr: float = Field(1.0, ge=0, description="the anchors' rate, as a share of the stitching layers'")
    min_lr: float = Field(1e-6, ge=0)
    warmup: int = Field(500, ge=0, description="steps of linear warm-up")
    warmup_lr: float = Field(0.0, ge=0, description="rate that the warm-up starts from")
    weight_decay: float = Field(0.05, ge=0)
    beta2: float = Field(0.999, gt=0, lt=1, description="second decay rate of AdamW and LAMB")
    fused: bool = Field(False, description="AdamW as one kernel: faster, sums in another order")
    clip: float | None = Field(None, gt=0, description="largest norm of the gradient")
    clip_mode: Literal["norm", "agc"] = Field("norm", description="agc: relative to each weight's norm")
    augment: str | None = Field(None, description="timm's policy, such as rand-m9-mstd0.5-inc1 or 3a (folders)")
    color_jitter: float = Field(0.4, ge=0, description="strength, where the policy leaves room for it (folders)")
    erase: float = Field(0.0, ge=0, le=1, description="probability of erasing a random part (folders)")
    crop_mode: Literal["rrc", "rkrc", "rkrr"] = Field("rrc", description="timm's random crop (folders)")
    repeat: int = Field(1, ge=1, description="times an image appears in a row, differently augmented (folders)")
    mixup: float = Field(0.0, ge=0, description="alpha of mixup; off at 0")
    cutmix: float = Field(0.0, ge=0, description="alpha of cutmix; off at 0; with both each is half of the steps")
    smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing")
    drop_path: tuple[float, ...] = Field((0.0,), min_length=1, description="one rate, or one for each anchor")
    drop_path_rule: Literal["linear", "constant"] = Field("linear", description="how it grows over an anchor's blocks")
    split_bn: int = Field(
        1, ge=1, description="parts of a batch with batch norms each; the first, whose norms are kept, is not erased"
    )
    teacher: str | None = Field(None, description="timm model to distil from")
    teacher_checkpoint: Path | None = Field(
        None, description="the teacher's weights; without it timm's pretrained ones"
    )
    distillation: Literal["hard", "soft"] = "hard"
    alpha: float = Field(0.5, ge=0, le=1, description="weight of the distillation loss")
    temperature: float = Field(1.0, gt=0, description="of soft distillation")
    curriculum: float = Field(0.0, ge=0, le=1, description="share of the steps from clean to full clutter (digits)")
    position_std: float | None = Field(None, gt=0, description="spread of fresh position embeddings, if not timm's")
    seed: int = Field(0, ge=0)
    save_every: int = Field(500, ge=1, description="steps between checkpoints")
    threads: int | None = Field(None, ge=1, description="CPU threads")

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or not given.get("preset"):
            return given
        if given["preset"] not in PRESETS:
            raise ValueError(f"preset: no {given['preset']!r}; there are {', '.join(PRESETS)}")
        recipe = {**PRESETS[given["preset"]], **given}
        if isinstance(recipe.get("drop_path"), Mapping) and "family" in recipe:
            recipe["drop_path"] = _of_anchors(recipe["drop_path"], recipe["family"])
        return recipe

    @model_validator(mode="after")
    def _has_equal_parts(self) -> Self:
        if self.batch % self.split_bn:
            raise ValueError(f"split_bn: a batch of {self.batch} images has no {self.split_bn} equal parts")
        return self

    @field_validator("drop_path", mode="before")
    @classmethod
    def _one_rate_is_a_list(cls, rate: Any) -> Any:
        return (rate,) if isinstance(rate, int | float) else rate


def _of_anchors(rates: Mapping[str, float], family: str) -> tuple[float, ...]:
    names = named_family(family).anchor_names
    unknown = [name for name in names if name not in rates]
    if unknown:
        raise ValueError(f"drop_path: the preset has no rate for anchor {unknown[0]!r}; give one for each anchor")
    return tuple(rates[name] for name in names)
