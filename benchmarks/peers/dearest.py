"""What peers serve: the most accurate stitch of the `digits` family alone, by the engine that stitchserve has."""

from typing import NamedTuple

from torch import Tensor

from lookup_tables.table import LookupTable, folder
from server.engine import Engine
from server.images import Limits
from server.pixels import decode

FAMILY, THREADS = "digits", 1


class Best(NamedTuple):
    """What an image most likely shows."""

    label: str
    probability: float


class Dearest:
    """Decodes and classifies. Errors are those of server.images and server.engine."""

    def __init__(self) -> None:
        self._table = LookupTable.load(folder(FAMILY))
        self._stitch = max(self._table.entries, key=lambda entry: entry.top1 or 0).stitch
        self._limits = Limits()
        self._engine = Engine.load(FAMILY, None, "cpu", THREADS)
        self._engine.run_once(self._stitch, 1)

    def decode(self, body: bytes) -> Tensor:
        """A file's bytes -> uint8 (3, 64, 64)."""
        return decode(body, self._table.family.preprocessing, self._limits)

    def classify(self, images: list[Tensor]) -> list[Best]:
        """The likeliest class of each image."""
        rankings = self._engine.run(images, [self._stitch] * len(images))
        return [Best(self._table.labels[each.indices[0]], each.probabilities[0]) for each in rankings]
