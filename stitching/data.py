"""Images to train and evaluate on: a folder with one sub-folder a class, or the built-in `digits` task."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from timm.data import create_transform
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS, default_loader

from stitching.digits import Digits
from stitching.families import Family, Preprocessing

Batch = tuple[Tensor, Tensor]


class Data(Protocol):
    """Normalised images (N, 3, H, W) with class numbers (N,), in an order that depends on nothing but the arguments."""

    @property
    def labels(self) -> Sequence[str]:
        """The classes' names, by number."""

    def training(self, first: int, steps: int, batch: int, seed: int) -> Iterator[Batch]:
        """The batches of the steps first..steps-1: the same for a step whether or not the run was interrupted."""

    def held_out(self, split: str, batch: int) -> Iterator[Batch]:
        """All images of a split, once, in a fixed order."""


@dataclass(frozen=True)
class Augmentation:
    """How training images of a folder are varied, in timm's terms; `repeat` is how often in a row an image comes.

    With more than one of `parts`, images in the first of a batch's equal parts are not erased.
    """

    policy: str | None = None
    color_jitter: float = 0.4
    erase: float = 0.0
    crop_mode: str = "rrc"
    repeat: int = 1
    parts: int = 1


PLAIN = Augmentation()


class Folder:
    """An ImageFolder tree: `root/train/<class>/*` and `root/<split>/<class>/*`, or the classes directly under root.

    Training images go through timm's training transform (random crop, flip, colour), held-out ones through timm's
    evaluation transform. Raises ValueError when a folder is missing or empty.
    """

    def __init__(
        self, root: Path, preprocessing: Preprocessing, augmentation: Augmentation = PLAIN, workers: int = 2
    ) -> None:
        self.root, self.preprocessing, self.augmentation, self.workers = root, preprocessing, augmentation, workers
        self.labels: Sequence[str] = self._open("train").classes

    def training(self, first: int, steps: int, batch: int, seed: int) -> Iterator[Batch]:
        """See Data. A step's images are drawn with replacement between epochs, without within one."""
        a = self.augmentation
        whole = _transform(self.preprocessing, replace(a, erase=0.0))
        dataset = _Seeded(self._open("train"), whole, _transform(self.preprocessing, a), seed)
        clean = batch // a.parts if a.parts > 1 else 0
        order = _Shuffled(len(dataset), batch, first, steps, seed=seed, repeat=a.repeat, clean=clean)
        loader: DataLoader[Batch] = DataLoader(dataset, batch_sampler=order, num_workers=self.workers)
        return iter(loader)

    def held_out(self, split: str, batch: int) -> Iterator[Batch]:
        """See Data."""
        dataset = self._open(split, _transform(self.preprocessing))
        if list(dataset.classes) != list(self.labels):
            raise ValueError(f"{self.root / split}: its class folders differ from those of {self.root / 'train'}")
        return iter(DataLoader(dataset, batch_size=batch, num_workers=self.workers))

    def _open(self, split: str, transform: Any = None) -> Any:
        folder = self.root / split if (self.root / "train").is_dir() else self.root
        try:
            return ImageFolder(folder, transform)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ValueError(f"{folder}: no folder with one sub-folder of images per class ({error})") from error


def _transform(p: Preprocessing, augmentation: Augmentation | None = None) -> Any:
    """timm's transform, for evaluation without an augmentation."""
    varied: dict[str, Any] = {}
    if augmentation:
        a = augmentation
        varied = {"auto_augment": a.policy, "color_jitter": a.color_jitter, "train_crop_mode": a.crop_mode}
        varied |= {"re_prob": a.erase, "re_mode": "pixel"}
    return create_transform(
        p.size, is_training=bool(augmentation), interpolation=p.interpolation, mean=p.mean, std=p.std,
        crop_pct=p.crop, **varied,
    )  # fmt: skip


Item = tuple[int, int, bool]
"""Which image, which of its draws, and whether it stays whole (is not erased)."""


class _Seeded(Dataset[Batch]):
    """A data set of pictures whose item augments by a seed of its own, in whichever worker it is made."""

    def __init__(self, dataset: Any, whole: Any, varied: Any, seed: int) -> None:
        self.dataset, self.whole, self.varied, self.seed = dataset, whole, varied, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: Item) -> Batch:
        index, draw, whole = item
        picture, label = self.dataset[index]
        with seeded(self.seed, index, draw):
            return (self.whole if whole else self.varied)(picture), label


class _Shuffled:
    """Batches of items: epoch after epoch shuffled, cut into steps, from step `first` on.

    An epoch has every index `repeat` times in a row, each a draw of its own; the first `clean` items of a batch stay
    whole.
    """

    def __init__(self, length: int, batch: int, first: int, steps: int, *, seed: int, repeat: int, clean: int) -> None:
        self.length, self.batch, self.first, self.steps, self.seed = length, batch, first, steps, seed
        self.repeat, self.clean = repeat, clean

    def __len__(self) -> int:
        return self.steps - self.first

    def __iter__(self) -> Iterator[list[Item]]:
        epoch, skip = divmod(self.first * self.batch, self.length * self.repeat)
        stream = islice(self._stream(epoch), skip, None)
        for _ in range(self.first, self.steps):
            drawn = islice(stream, self.batch)
            yield [(index, draw, place < self.clean) for place, (index, draw) in enumerate(drawn)]

    def _stream(self, epoch: int) -> Iterator[tuple[int, int]]:
        while True:
            generator = Generator().manual_seed(self.seed * 1_000_003 + epoch)
            for index in torch.randperm(self.length, generator=generator).tolist():
                yield from ((index, epoch * self.repeat + again) for again in range(self.repeat))
            epoch += 1


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """All three global random streams seeded from `numbers` inside the block, and put back after it.

    timm's and torchvision's augmentations and drop-path draw from them.
    """
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    python, legacy = random.getstate(), np.random.get_state()
    # A DataLoader's worker must not touch CUDA, which its parent may have started before the fork.
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = [torch.cuda.current_device()] if started else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)


def open_data(source: str, family: Family, curriculum: float = 0.0, augmentation: Augmentation = PLAIN) -> Data:
    """The data that `source` names: "digits", or a folder. Raises ValueError when its classes are not the family's."""
    p = family.preprocessing
    if curriculum and source != "digits":
        raise ValueError("curriculum: only the built-in task 'digits' has one")
    data: Data = Digits(p.mean, p.std, curriculum) if source == "digits" else Folder(Path(source), p, augmentation)
    if len(data.labels) != family.classes:
        raise ValueError(f"data {source!r} has {len(data.labels)} classes, family {family.name!r} {family.classes}")
    return data


def has_classes(source: str, family: Family) -> bool:
    """Whether the data that `source` names has labels: "digits", or a folder with as many class folders as classes."""
    if source == "digits":
        return True
    root = Path(source)
    root = root / "train" if (root / "train").is_dir() else root
    return root.is_dir() and sum(entry.is_dir() for entry in root.iterdir()) == family.classes


def sample(source: str, family: Family, count: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Batches of `count` normalised images (batch, 3, size, size) of the data that `source` names, labelled or not.

    Labelled ones come as for training, others, chosen anywhere under the folder, as for evaluation; then there are
    fewer where the folder has fewer. ValueError where there is none.
    """
    if has_classes(source, family):
        steps = -(-count // batch)
        yield from (images for images, _ in open_data(source, family).training(0, steps, batch, seed))
        return
    files = sorted(path for path in Path(source).rglob("*") if path.suffix.lower() in IMG_EXTENSIONS)
    if not files:
        raise ValueError(f"{source}: no image in it")
    chosen = random.Random(seed).sample(files, min(count, len(files)))  # noqa: S311 - a choice, no secret
    transform = _transform(family.preprocessing)
    for start in range(0, len(chosen), batch):
        yield torch.stack([transform(default_loader(str(path))) for path in chosen[start : start + batch]])
