"""What peers do with an image: one stitch of one family by the engine that stitchserve has, or nothing at all.

The environment says which, since some peers start processes of their own: PEER_WORK is `noop`, or a family and a stitch
as in `digits:46` (`digits`: the most accurate one); PEER_CHECKPOINT its weights; PEER_THREADS the threads that compute.
PEER_INSIDE is `timm` for an anchor as timm computes it, which is what a user of the peer has. PEER_DEVICE is where to
compute, PEER_ROWS the most images of a batch, and PEER_COPIES how many processes do it where a peer can have several.
"""

import io
import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol

NOOP = "noop"
DEVICE = os.environ.get("PEER_DEVICE", "cpu")
ROWS, COPIES = int(os.environ.get("PEER_ROWS", "16")), int(os.environ.get("PEER_COPIES", "1"))


class Best(NamedTuple):
    """What an image most likely shows."""

    label: str
    probability: float


class Work(Protocol):
    """Two steps, so that a server may batch the second; `lanes` threads may do that at once."""

    lanes: int

    def decode(self, body: bytes) -> Any:
        """A file's bytes -> what `classify` takes. Raises ServeError for a bad image."""

    def classify(self, images: list[Any]) -> list[Best]:
        """The likeliest class of each image."""


class Nothing:
    """Takes bytes, answers always alike."""

    lanes = 1

    def decode(self, body: bytes) -> int:
        """Their number."""
        return len(body)

    def classify(self, images: list[int]) -> list[Best]:
        """The same for all."""
        return [Best("nothing", 1.0)] * len(images)


class Stitch:
    """One stitch of a family."""

    def __init__(self, name: str, checkpoint: Path | None, threads: int) -> None:
        # Here, since a server that does nothing is not to carry them.
        from lookup_tables.table import LookupTable, folder  # noqa: PLC0415
        from server.engine import Engine  # noqa: PLC0415
        from server.images import Limits  # noqa: PLC0415
        from server.pixels import decode  # noqa: PLC0415

        family, _, chosen = name.partition(":")
        self._table, self._decode, self._limits = LookupTable.load(folder(family)), decode, Limits()
        best = max(self._table.entries, key=lambda entry: entry.top1 or 0)
        self._stitch = int(chosen) if chosen else best.stitch
        self._engine = Engine.load(family, checkpoint, DEVICE, threads, max_batch=ROWS)
        self.lanes = self._engine.lanes
        self._engine.run_once(self._stitch, 1)
        if self._engine.staged:
            self._engine.warm_up([self._stitch])
            for record in self._engine.recordings([self._stitch]):
                record()

    def decode(self, body: bytes) -> Any:
        """uint8 (3, size, size)."""
        return self._decode(body, self._table.family.preprocessing, self._limits)

    def classify(self, images: list[Any]) -> list[Best]:
        """By the engine, as one batch."""
        rankings = self._engine.run(images, [self._stitch] * len(images))
        return [Best(self._table.labels[each.indices[0]], float(each.probabilities[0])) for each in rankings]


class Plain:
    """An anchor as timm's documentation runs it: its transform on Pillow's picture, its network, inference mode.

    On a GPU in float16.
    """

    lanes = 1

    def __init__(self, name: str, checkpoint: Path | None, threads: int) -> None:
        import timm  # noqa: PLC0415 - as above
        import torch  # noqa: PLC0415
        from PIL import Image  # noqa: PLC0415

        import stitching  # noqa: PLC0415
        from lookup_tables.table import LookupTable, folder  # noqa: PLC0415

        family, _, chosen = name.partition(":")
        table, model = LookupTable.load(folder(family)), stitching.load(family, checkpoint)
        anchor = table.entry(int(chosen)).anchor
        (self._net,) = (seam.net.eval() for seam in model.seams if seam.stem.name.partition(".")[0] == anchor)
        self._dtype = torch.float32 if DEVICE == "cpu" else torch.float16
        self._net.to(DEVICE, self._dtype)
        self._torch, self._open, self._labels = torch, Image.open, table.labels
        p = table.family.preprocessing
        self._transform = timm.data.create_transform(
            p.size, interpolation=p.interpolation, mean=p.mean, std=p.std, crop_pct=p.crop
        )
        torch.set_num_threads(threads)

    def decode(self, body: bytes) -> Any:
        """float32 (3, size, size), normalised."""
        return self._transform(self._open(io.BytesIO(body)).convert("RGB"))

    def classify(self, images: list[Any]) -> list[Best]:
        """As one batch."""
        with self._torch.inference_mode():
            batch = self._torch.stack(images).to(DEVICE, self._dtype)
            values, classes = self._net(batch).softmax(dim=1).max(dim=1)
        return [Best(self._labels[each], value) for each, value in zip(classes.tolist(), values.tolist(), strict=True)]


def work() -> Work:
    """As the environment says."""
    name = os.environ.get("PEER_WORK", "digits")
    if name == NOOP:
        return Nothing()
    kind = Plain if os.environ.get("PEER_INSIDE") == "timm" else Stitch
    checkpoint = os.environ.get("PEER_CHECKPOINT")
    return kind(name, Path(checkpoint) if checkpoint else None, int(os.environ.get("PEER_THREADS", "1")))
