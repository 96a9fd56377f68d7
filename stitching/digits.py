"""The `digits` task: two handwritten digits composed to one 64 x 64 colour image, 100 classes "00" to "99".

The handwriting is scikit-learn's copy of the UCI optical digits (8 x 8 scans). Scans are split into train, validation
and test before anything is composed, so no scan appears in two splits.
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Generator, Tensor
from torch.nn import functional as F
from torchvision.io import write_jpeg

SIZE = 64
SPLIT_SEED = 20230618
SHARES = {"train": 0.6, "val": 0.1, "test": 0.3}
HELD_OUT_SEED = {"val": 1, "test": 2}
FULL = 0.5
"""The difficulty of all held-out images, and of training images once the curriculum is over."""


@dataclass(frozen=True)
class Scans:
    """Handwriting of one split: ink (N, 8, 8) in [0, 1], and the rows of each digit."""

    ink: Tensor
    rows: tuple[Tensor, ...]


def scans(split: str) -> Scans:
    """The scans of "train", "val" or "test": each digit's scans, shuffled once by a fixed seed, cut by SHARES."""
    bunch = load_digits()
    ink = torch.from_numpy(bunch.images).float() / 16
    digit = torch.from_numpy(bunch.target)
    shuffled = torch.randperm(len(digit), generator=Generator().manual_seed(SPLIT_SEED))
    names = list(SHARES)
    start = sum(SHARES[name] for name in names[: names.index(split)])
    rows = []
    for value in range(10):
        mine = shuffled[digit[shuffled] == value]
        rows.append(mine[round(start * len(mine)) : round((start + SHARES[split]) * len(mine))])
    return Scans(ink, tuple(rows))


class Digits:
    """The task as training and evaluation data; images come normalised with the family's mean and std.

    `curriculum`: the share of a training's steps over which the difficulty grows from none to FULL. A small ViT that
    starts on full clutter does not leave chance.
    """

    labels = tuple(f"{number:02d}" for number in range(100))

    def __init__(
        self, mean: tuple[float, ...], std: tuple[float, ...], curriculum: float = 0.0, held_out: int = 10_000
    ) -> None:
        self.mean, self.std = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
        self.curriculum, self.held_out_images = curriculum, held_out
        self._composed: dict[tuple[str, int], list[tuple[Tensor, Tensor]]] = {}

    def training(self, first: int, steps: int, batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the steps first..steps-1: images (batch, 3, 64, 64) and class numbers (batch,)."""
        source = scans("train")
        for step in range(first, steps):
            generator = Generator().manual_seed(seed * 1_000_003 + step)
            growing = self.curriculum * steps
            difficulty = FULL * min(1.0, step / growing) if growing else FULL
            images, classes = compose(source, batch, difficulty, generator)
            yield self._normalise(images), classes

    def held_out(self, split: str, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The split's fixed images at full difficulty, in the same order always."""
        # Composed once: evaluation comes back for them with every stitch.
        key = split, batch
        if key not in self._composed:
            source, generator = scans(split), Generator().manual_seed(HELD_OUT_SEED[split])
            sizes = [min(batch, self.held_out_images - start) for start in range(0, self.held_out_images, batch)]
            self._composed[key] = [compose(source, size, FULL, generator) for size in sizes]
        for images, classes in self._composed[key]:
            yield self._normalise(images), classes

    def _normalise(self, images: Tensor) -> Tensor:
        return (images / 255 - self.mean) / self.std


def compose(source: Scans, count: int, difficulty: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """`count` images (count, 3, 64, 64) uint8 and their classes (count,).

    `difficulty` in [0, 1] widens placement, scale, slant and rotation, and brings in texture, clutter, low contrast
    and noise.
    """
    digits = torch.randint(0, 10, (count, 2), generator=generator)
    ink = _pair(source, digits, difficulty, generator)  # (count, 2, 64, 64)
    image, foreground = _background(count, difficulty, generator)
    for place in range(2):
        colour = (foreground + difficulty * 0.15 * torch.randn(count, 3, generator=generator)).clamp(0, 1)
        image.lerp_(colour[..., None, None], ink[:, place, None])
    image.add_(torch.randn(image.shape, generator=generator), alpha=difficulty * 0.06)
    return image.clamp_(0, 1).mul_(255).round_().to(torch.uint8), digits[:, 0] * 10 + digits[:, 1]


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _pair(source: Scans, digits: Tensor, difficulty: float, generator: Generator) -> Tensor:
    """Ink of two scans an image, tens on the left, each placed, scaled, slanted and turned: (count, 2, 64, 64)."""
    count = len(digits)
    picked = torch.empty(count, 2, dtype=torch.long)
    for value, rows in enumerate(source.rows):
        where = digits == value
        picked[where] = rows[torch.randint(0, len(rows), (int(where.sum()),), generator=generator)]
    scans_picked = source.ink[picked].view(count * 2, 1, 8, 8)
    flat = (count * 2,)
    centre_x = torch.tensor([-0.42, 0.42]).repeat(count) + difficulty * _uniform(flat, -0.14, 0.14, generator)
    centre_y = difficulty * _uniform(flat, -0.4, 0.4, generator)
    half_height = 0.42 + difficulty * _uniform(flat, -0.14, 0.06, generator)
    half_width = half_height * (0.9 + difficulty * _uniform(flat, -0.25, 0.1, generator))
    slant = difficulty * _uniform(flat, -0.4, 0.4, generator)
    angle = difficulty * _uniform(flat, -0.3, 0.3, generator)
    cos, sin = angle.cos(), angle.sin()
    # From a pixel of the image back to a point of the scan: move, turn, slant, scale.
    row_x = torch.stack([cos / half_width, (sin + slant * cos) / half_width, torch.zeros(flat)], dim=1)
    row_y = torch.stack([-sin / half_height, (cos - slant * sin) / half_height, torch.zeros(flat)], dim=1)
    theta = torch.stack([row_x, row_y], dim=1)  # (count * 2, 2, 3)
    centre = torch.stack([centre_x, centre_y], dim=1)
    theta[:, :, 2] = -(theta[:, :, :2] @ centre[..., None]).squeeze(-1)
    grid = F.affine_grid(theta, [count * 2, 1, SIZE, SIZE], align_corners=False)
    ink = F.grid_sample(scans_picked, grid, mode="bicubic", align_corners=False).clamp(0, 1)
    weight = 1 - difficulty * _uniform((count * 2, 1, 1, 1), 0, 0.35, generator)  # fainter ink
    return (ink * weight).view(count, 2, SIZE, SIZE)


def _background(count: int, difficulty: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Background (count, 3, 64, 64) with texture and strokes, and an ink colour (count, 3) in contrast to it."""
    dark = _uniform((count, 3), 0, 0.12 + 0.18 * difficulty, generator)
    light = _uniform((count, 3), 0.88 - 0.28 * difficulty, 1, generator)
    swap = torch.rand(count, 1, generator=generator) < 0.5 * difficulty
    base, foreground = torch.where(swap, light, dark), torch.where(swap, dark, light)
    coarse = torch.randn(count, 3, 5, 5, generator=generator)
    texture = F.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    image = texture.mul_(difficulty * 0.09).add_(base[..., None, None])
    _strokes(image, foreground, difficulty, generator)
    return image, foreground


def _strokes(image: Tensor, foreground: Tensor, difficulty: float, generator: Generator, strokes: int = 4) -> None:
    """Clutter drawn into `image`: short strokes of random place, length, width and colour, under the digits."""
    count = len(image)
    axis = torch.linspace(-1, 1, SIZE)
    for _ in range(strokes):
        at = _uniform((count, 2, 1, 1), -1, 1, generator)
        turn = _uniform((count, 1, 1), 0, math.pi, generator)
        cos, sin = turn.cos(), turn.sin()
        length = _uniform((count, 1, 1), 0.1, 0.5, generator)
        width = _uniform((count, 1, 1), 0.02, 0.06, generator)
        dx, dy = axis - at[:, 0], axis[:, None] - at[:, 1]  # (count, 1, 64), (count, 64, 1)
        along, across = dx * cos + dy * sin, dy * cos - dx * sin
        distance = torch.hypot((along.abs() - length).clamp(min=0), across)
        cover = distance.sub_(width).div_(-0.03).add_(1).clamp_(0, 1).mul_(difficulty * 0.6)
        colour = (foreground * 0.6 + 0.4 * torch.rand(count, 3, generator=generator))[..., None, None]
        image.lerp_(colour, cover[:, None])


def write_samples(folder: Path, count: int = 20) -> None:
    """Test images of `count` classes, images the network has never seen, as JPEG files named by their class."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = Generator().manual_seed(HELD_OUT_SEED["test"])
    images, classes = compose(scans("test"), 100, FULL, generator)
    chosen = dict(zip(reversed(classes.tolist()), reversed(images), strict=True))  # the first image of each class
    for number in sorted(chosen)[:: len(chosen) // count][:count]:
        write_jpeg(chosen[number], str(folder / f"{number:02d}.jpg"), quality=95)


if __name__ == "__main__":
    write_samples(Path(sys.argv[1]))
