"""What the files of a lookup table hold, as types."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
"""A plain name: safe as a file name and in a picture."""

Text = Annotated[str, Field(min_length=1, max_length=1000)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class TableError(ValueError):
    """A lookup table that cannot be used: the message has file, line, reason and remedy."""


class UnknownStitch(LookupError):  # noqa: N818 - named for what it says, like the standard library's StopIteration
    """A stitch id that the table does not have."""


@dataclass(frozen=True)
class Entry:
    """One stitch: its FLOPs (multiply-adds, one image), parameters and top-1 (fraction; None if unknown)."""

    stitch: int
    route: str
    flops: int
    params: int
    top1: float | None

    @property
    def anchor(self) -> str | None:
        """The anchor's name where the stitch is one anchor alone."""
        return None if ">" in self.route else self.route.partition("[")[0]

    @property
    def worth(self) -> float:
        """What stitches are ordered by: top-1, or FLOPs where it is not known."""
        return float(self.flops) if self.top1 is None else self.top1


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input: pixels, timm's crop_pct, mean and deviation of values in 0..1."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    size: Annotated[int, Field(ge=1, le=4096)]
    crop: Annotated[float, Field(gt=0, le=1)]
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"]
    mean: tuple[Finite, Finite, Finite]
    std: tuple[Positive, Positive, Positive]


@dataclass(frozen=True)
class Top1Source:
    """Where top-1 comes from, and over how many images if that is known."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    source: Text
    images: Annotated[int, Field(ge=1)] | None = None


@dataclass(frozen=True)
class FlopsSource:
    """Where the FLOPs come from and what counts as one."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    source: Text
    convention: Text


@dataclass(frozen=True)
class Checkpoint:
    """The file with the weights, and its SHA-256 in lower-case hex if that is known."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: Name
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


@dataclass(frozen=True)
class Family:
    """What family.json holds; `labels` is a path relative to the family's folder."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    schema: Literal[1]
    name: Annotated[Name, Field(alias="family")]
    anchors: Annotated[tuple[Name, ...], Field(min_length=1, max_length=100)]
    classes: Annotated[int, Field(ge=1, le=1_000_000)]
    labels: Annotated[str, Field(pattern=r"^[A-Za-z0-9_./-]+$", max_length=200)]
    top1: Top1Source
    flops: FlopsSource
    preprocessing: Preprocessing
    checkpoint: Checkpoint | None
