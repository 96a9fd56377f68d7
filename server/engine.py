"""The model on a device: uint8 images and a stitch for each in, the likeliest classes out."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import stitching
from lookup_tables.costs import Way
from lookup_tables.modules import INPUT, OUTPUT
from server.cuda import Cuda
from server.device import gpu_uuid, narrow_formats, pick_device, slug
from server.dtype import Setting, choose, install, measured
from server.process import give_back_freed_memory
from server.runner import Direct, Runner
from server.staged import SLOTS, Forward, Pass, Staged
from server.threads import most_threads, settle
from stitching import SNNet
from stitching.anchors import Step
from stitching.lean import streamline
from stitching.stopwatch import Stopwatch
from stitching.wavefront import Through

MOST_CLASSES = 100
WARM_UP = 20.0  # seconds; what is not recorded then is recorded when it is used

Image = Tensor
"""One image, decoded: uint8 (3, size, size)."""


class Ranking(NamedTuple):
    """The likeliest classes of one image, best first, with their probabilities; few are asked for all of them."""

    indices: NDArray[np.int64]
    probabilities: NDArray[np.float32]


class Costs(Protocol):
    """What a batch costs that mixes stitches, given how many rows each has: a lookup table knows."""

    def merged_seconds(self, counts: Mapping[int, int]) -> float:
        """Seconds when rows at the same module run together."""

    def grouped_seconds(self, counts: Mapping[int, int]) -> float:
        """Seconds when one stitch runs after another."""


class Engine:
    """One SN-Net on one device. `lanes` threads may call `run` at once.

    `costs` says for a batch of several stitches which way is faster; without it, merged. `mixed` counts what was done.
    `broken` is why the device is of no use until the process starts again, if it is.
    """

    def __init__(
        self,
        model: SNNet,
        device: torch.device,
        threads: int | None = None,
        *,
        dtype: Setting = "auto",
        max_batch: int = 64,
        cache: Path | None = None,
        runner: Callable[[torch.device, Forward], Runner] = Direct,
    ) -> None:
        """`max_batch`: the most rows that a GPU runs in one piece; `runner`: what runs passes elsewhere.

        In `cache` is kept what took long to measure.
        """
        self.device = device
        # Beside a GPU torch has little to do on the processor, and threads that decode do that at once.
        torch.set_num_threads(threads or (most_threads() if device.type == "cpu" else 1))
        formats = narrow_formats(device)
        self.precision = install(model, device, choose(dtype, device, formats, partial(measured, model)), formats)
        # float32 that was asked for is exact: equal to timm's to the last bit.
        self._layout = torch.contiguous_format if dtype == "float32" else torch.channels_last
        self.model = model.to(memory_format=self._layout).eval().requires_grad_(False)
        streamline(self.model, exactly=dtype == "float32")
        self.threads = settle(self.model, threads, cache) if device.type == "cpu" else None
        p = model.family.preprocessing
        self.image_size = p.size
        # (x / 255 - mean) / std as one multiplication and one addition.
        std = torch.tensor(p.std, device=device).view(1, 3, 1, 1)
        self._scale = 1 / (255 * std)
        self._shift = -torch.tensor(p.mean, device=device).view(1, 3, 1, 1) / std
        self._kept = min(MOST_CLASSES, model.family.classes)
        self.costs: Costs | None = None
        self.mixed: Counter[str] = Counter()
        self.broken: str | None = None
        self._fixed: list[Image] = []
        self.runner = runner(device, self._forward)
        if device.type == "cuda":
            self.runner = Staged(Cuda(device), self._forward, max_batch, self.image_size, self._kept)

    @classmethod
    def load(
        cls,
        family: str,
        checkpoint: Path | None,
        device: str,
        threads: int | None = None,
        *,
        dtype: Setting = "auto",
        max_batch: int = 64,
        cache: Path | None = None,
    ) -> "Engine":
        """The engine for a family's checkpoint. Raises ValueError for a device, family or file that does not do."""
        chosen = pick_device(device)
        model = stitching.load(family, checkpoint)
        engine = cls(model, chosen, threads, dtype=dtype, max_batch=max_batch, cache=cache)
        give_back_freed_memory()
        return engine

    @property
    def device_slug(self) -> str:
        """This device's name in latency files."""
        return slug(self.device)

    @property
    def gpu_uuid(self) -> str | None:
        """The UUID of the GPU it computes on, as CUDA gives it; None on a CPU."""
        return gpu_uuid(self.device)

    @property
    def conditions(self) -> Mapping[str, str]:
        """What latencies measured here depend on, for the file's heading."""
        return {
            "dtype": self.precision.variant.name,
            "layout": str(self._layout).removeprefix("torch."),
            "image_size": str(self.image_size),
            "torch": torch.__version__,
            "date": date.today().isoformat(),
        }

    @property
    def staged(self) -> Staged | None:
        """On a GPU what stages batches, with its `buckets` and `graphs`; None elsewhere."""
        return self.runner if isinstance(self.runner, Staged) else None

    @property
    def lanes(self) -> int:
        """How many threads may call `run` at once: with two the next batch is copied in while one computes."""
        return SLOTS if self.staged else 1

    def run(self, images: Sequence[Tensor], stitches: Sequence[int], way: Way | None = None) -> list[Ranking]:
        """Images, uint8 (3, size, size) each, and a stitch id for each -> a ranking for each.

        A mixture is run the `way` that is asked for, else the one that costs say, which is counted.
        Raises RuntimeError when the device fails; `broken` then says whether it is worth another try.
        """
        passes = self._passes(stitches, way)
        answers = self._guarded([Pass([images[r] for r in rows], [stitches[r] for r in rows]) for rows in passes])
        places = [row for rows in passes for row in rows]
        return [ranking for _, ranking in sorted(zip(places, self._rankings(answers), strict=True))]

    def run_once(self, stitch: int, batch: int) -> None:
        """One batch of one stitch on a fixed image, done when this returns: for warming up and profiling."""
        if self.staged:
            self.staged.learn_whole(stitch, batch)
        self.run(self.fixed_images(batch), [stitch] * batch)

    def fixed_images(self, count: int) -> list[Image]:
        """So many images, the same each time; each has memory of its own, as those of requests have."""
        for _ in range(count - len(self._fixed)):
            self._fixed.append(torch.full((3, self.image_size, self.image_size), 128, dtype=torch.uint8))
        return self._fixed[:count]

    @torch.inference_mode()
    def run_timed(self, stitch: int, batch: int) -> list[tuple[str, float]]:
        """The same; gives the module classes that it passed, in order, with the seconds spent in each."""
        path = self.model.path(self.model.stitches[stitch])
        if self.staged and (laps := self._laps(self.staged, stitch, batch)):
            return list(zip([INPUT, *(step.kind for step in path), OUTPUT], laps, strict=True))
        images = self.fixed_images(batch)
        watch = Stopwatch(self.device)
        x = self._prepared(torch.stack(images).to(self.device))
        watch.lap()
        for step in path:
            x = step(x)
            watch.lap()
        self._rankings(self._ranked(x).cpu())
        watch.lap()
        return list(zip([INPUT, *(step.kind for step in path), OUTPUT], watch.laps(), strict=True))

    def _laps(self, staged: Staged, stitch: int, batch: int) -> list[float] | None:
        """The seconds as graphs take them, and as the first what else a batch takes; None where there are no graphs."""
        path = self.model.path(self.model.stitches[stitch])
        staged.learn_whole(stitch, batch)  # or recording would count
        staged.learn(batch, self._prepared, path)
        began = time.perf_counter()
        self.run_once(stitch, batch)
        whole = time.perf_counter() - began
        laps = staged.laps(stitch, batch, [self._prepared, *path, self._ranked])
        return laps and [laps[0] + max(0.0, whole - sum(laps)), *laps[1:]]

    def _rankings(self, answers: Tensor) -> list[Ranking]:
        probabilities, classes = answers.numpy().swapaxes(0, 1)
        if not np.isfinite(probabilities).all():
            raise RuntimeError(f"an answer in {self.precision.variant.name} is not finite; --dtype float32 mends it")
        return list(map(Ranking, classes.astype(np.int64), probabilities))

    @torch.inference_mode()
    def warm_up(
        self, stitches: Sequence[int], seconds: float = WARM_UP, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Run before requests come: the first and the last stitch; on a GPU the steps of all, each recorded by itself.

        And there the first stitch as a whole, which is what runs while little is asked. Largest batches first, so
        that the others find room in the memory those take. Ends after about `seconds`.
        """
        self._fixed.clear()
        if not self.staged:
            for stitch in (stitches[0], stitches[-1]):
                self.run_once(stitch, 1)
            return
        self.staged.forget_laps()
        ends = clock() + seconds
        for rows, stitch in product(self.staged.buckets.sizes[::-1], stitches):
            if clock() >= ends:
                return
            self.staged.learn(rows, self._prepared, self.model.path(self.model.stitches[stitch]))
        for record in self.recordings(stitches[:1]):
            record()

    def recordings(self, stitches: Sequence[int]) -> Iterator[Callable[[], bool]]:
        """What is to be done, in this order, when there is nothing else: on a GPU to record each stitch as a whole.

        Launched as one, it then takes less of the processor than step after step. Ends where a step would have to go
        for it. Each says whether it is done; if not, it has made way for a batch.
        """
        if self.staged:
            for stitch, rows in product(stitches, self.staged.buckets.sizes[::-1]):
                if not self.staged.graphs.roomy:
                    return
                yield partial(self.staged.learn_whole, stitch, rows)

    def _passes(self, stitches: Sequence[int], way: Way | None) -> list[list[int]]:
        """The rows that run together, for each time that the model runs."""
        rows_of: dict[int, list[int]] = {}
        for row, stitch in enumerate(stitches):
            rows_of.setdefault(stitch, []).append(row)
        if len(rows_of) > 1:
            if way is None:
                way = self._way({stitch: len(rows) for stitch, rows in rows_of.items()})
                self.mixed[way] += 1
            if way == "grouped":
                return list(rows_of.values())
        return [list(range(len(stitches)))]

    def _way(self, counts: Mapping[int, int]) -> Way:
        if self.costs is None or self.costs.merged_seconds(counts) <= self.costs.grouped_seconds(counts):
            return "merged"
        return "grouped"

    def _guarded(self, passes: Sequence[Pass]) -> Tensor:
        if self.broken:
            raise RuntimeError(f"the device is broken: {self.broken}")
        try:
            return self.runner.run(passes)
        except RuntimeError:
            self.broken = self.runner.fault()
            raise

    @torch.inference_mode()
    def _forward(self, pixels: Tensor, stitches: Sequence[int], through: Through[Step]) -> Tensor:
        """Pixels (N, 3, size, size) on the device -> (N, 2, classes kept): probabilities, and the classes' indices.

        Both in one float32 tensor, which holds every index below 2**24, so that one copy brings them back.
        """
        chosen = [self.model.stitches[stitch] for stitch in stitches]
        alone = len(set(stitches)) == 1
        return self._ranked(self.model(self._prepared(pixels), chosen[0] if alone else chosen, through))

    def _prepared(self, pixels: Tensor) -> Tensor:
        x = pixels.float().mul_(self._scale).add_(self._shift)
        return x.to(dtype=self.precision.variant.dtype, memory_format=self._layout)

    def _ranked(self, logits: Tensor) -> Tensor:
        top = logits.float().softmax(dim=1).topk(self._kept, dim=1)
        return torch.stack((top.values, top.indices.float()), dim=1)
