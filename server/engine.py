"""The model on a device: uint8 images and a stitch for each in, the likeliest classes out."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import stitching
from lookup_tables.modules import INPUT, OUTPUT
from lookup_tables.profile import device_slug
from lookup_tables.table import LookupTable, TableError
from stitching import SNNet
from stitching.stopwatch import Stopwatch

MOST_CLASSES = 100

Image = Tensor
"""One image, decoded: uint8 (3, size, size)."""


class Ranking(NamedTuple):
    """The likeliest classes of one image, best first, with their probabilities."""

    indices: list[int]
    probabilities: list[float]


def pick_device(name: str) -> torch.device:
    """The device of that name; `auto` is CUDA where there is one. ValueError for one that is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device: {name!r} cannot be used here ({str(error).splitlines()[0]})") from error
    return device


class Engine:
    """One SN-Net on one device. `run` is called from one thread at a time."""

    def __init__(self, model: SNNet, device: torch.device, threads: int | None = None) -> None:
        if threads and device.type == "cpu":
            torch.set_num_threads(threads)
        self.device = device
        self.model = model.to(device).eval().requires_grad_(False)
        self.image_size = model.family.preprocessing.size
        p = model.family.preprocessing
        # (x / 255 - mean) / std as one multiplication and one addition.
        std = torch.tensor(p.std, device=device).view(1, 3, 1, 1)
        self._scale = 1 / (255 * std)
        self._shift = -torch.tensor(p.mean, device=device).view(1, 3, 1, 1) / std

    @classmethod
    def load(cls, family: str, checkpoint: Path | None, device: str, threads: int | None = None) -> "Engine":
        """The engine for a family's checkpoint. Raises ValueError for a device, family or file that does not do."""
        chosen = pick_device(device)
        return cls(stitching.load(family, checkpoint), chosen, threads)

    def check(self, table: LookupTable) -> None:
        """TableError unless the table is one of this model: the same stitches, modules, classes and preprocessing."""
        family = self.model.family
        routes = {stitch.id: stitch.route(family.anchor_names) for stitch in self.model.stitches}
        for entry in table.entries:
            if routes.get(entry.stitch) != entry.route:
                raise TableError(
                    f"table {table.family.name!r}: stitch {entry.stitch} is {entry.route}, "
                    f"but {routes.get(entry.stitch)} in family {family.name!r}; use the table of this family"
                )
            if table.modules and table.modules.walk(entry.route) != self._walk(entry.stitch):
                raise TableError(
                    f"table {table.family.name!r}: by modules.csv stitch {entry.stitch} passes other modules than in "
                    f"family {family.name!r}; write the table again with `stitchserve evaluate`, or remove that file"
                )
        if table.family.classes != family.classes or asdict(table.family.preprocessing) != asdict(family.preprocessing):
            raise TableError(
                f"table {table.family.name!r}: classes or preprocessing differ from family {family.name!r}"
            )

    def _walk(self, stitch: int) -> list[tuple[str, str]]:
        return [(step.name, step.kind) for step in self.model.path(self.model.stitches[stitch])]

    @property
    def device_slug(self) -> str:
        """This device's name in latency files."""
        if self.device.type == "cuda":
            return device_slug("cuda", torch.cuda.get_device_name(self.device))
        return device_slug("cpu", _processor(), torch.get_num_threads())

    @property
    def gpu_uuid(self) -> str | None:
        """The UUID of the GPU it computes on, as CUDA gives it; None on a CPU."""
        return str(torch.cuda.get_device_properties(self.device).uuid) if self.device.type == "cuda" else None

    @property
    def conditions(self) -> Mapping[str, str]:
        """What latencies measured here depend on, for the file's heading."""
        return {
            "dtype": "float32",
            "image_size": str(self.image_size),
            "torch": torch.__version__,
            "date": date.today().isoformat(),
        }

    @torch.inference_mode()
    def run(self, images: Sequence[Tensor], stitches: Sequence[int]) -> list[Ranking]:
        """Images, uint8 (3, size, size) each, and a stitch id for each -> a ranking for each."""
        batch = self._to_device(images)
        chosen = [self.model.stitches[stitch] for stitch in stitches]
        return self._rank(self.model(batch, chosen[0] if len(set(stitches)) == 1 else chosen))

    def run_once(self, stitch: int, batch: int) -> None:
        """One batch of one stitch on a fixed image, done when this returns: for warming up and profiling."""
        self.run([self._fixed_image()] * batch, [stitch] * batch)

    @torch.inference_mode()
    def run_timed(self, stitch: int, batch: int) -> list[tuple[str, float]]:
        """The same; gives the module classes that it passed, in order, with the seconds spent in each."""
        path = self.model.path(self.model.stitches[stitch])
        images = [self._fixed_image()] * batch
        watch = Stopwatch(self.device)
        x = self._to_device(images)
        watch.lap()
        for step in path:
            x = step(x)
            watch.lap()
        self._rank(x)
        watch.lap()
        return list(zip([INPUT, *(step.kind for step in path), OUTPUT], watch.laps(), strict=True))

    def _fixed_image(self) -> Tensor:
        return torch.full((3, self.image_size, self.image_size), 128, dtype=torch.uint8)

    def _to_device(self, images: Sequence[Tensor]) -> Tensor:
        batch = torch.stack(list(images)).to(self.device, non_blocking=True).float()
        return batch.mul_(self._scale).add_(self._shift)

    def _rank(self, logits: Tensor) -> list[Ranking]:
        top = logits.softmax(dim=1).topk(min(MOST_CLASSES, logits.shape[1]), dim=1)
        return [Ranking(*row) for row in zip(top.indices.tolist(), top.values.tolist(), strict=True)]


def _processor() -> str:
    """The processor's name as Linux gives it, or as Python knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
