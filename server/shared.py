"""Memory that a front end and the engine's process share: pictures are put there by one and read there by the other."""

import math
import mmap
import os
import tempfile
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Shared:
    """`places` of `size` bytes each, in a file that has no name; what nobody has written takes no memory."""

    def __init__(self, file: int, size: int, places: int) -> None:
        """On an open file, which it takes; `create` makes one."""
        self.file, self.size, self.places = file, size, places
        self._memory = mmap.mmap(file, size * places)

    @classmethod
    def create(cls, size: int, places: int) -> "Shared":
        """New memory."""
        if hasattr(os, "memfd_create"):
            file = os.memfd_create("stitchserve")
        else:
            with tempfile.TemporaryFile() as named:
                file = os.dup(named.fileno())
        os.ftruncate(file, size * places)
        return cls(file, size, places)

    def put(self, place: int, pixels: NDArray[np.uint8]) -> None:
        """Copy pixels into a place."""
        self.pixels(place, pixels.shape)[:] = pixels

    def pixels(self, place: int, shape: tuple[int, ...]) -> NDArray[Any]:
        """What lies in a place. ValueError for a shape that does not fit, or a place that there is not."""
        if not 0 <= place < self.places or math.prod(shape) > self.size or min(shape, default=-1) < 0:
            raise ValueError(f"there is no {shape} at {place}")
        # Unlike ndarray's own buffer, this one keeps the memory from being closed under whoever looks.
        return np.frombuffer(self._memory, np.uint8, math.prod(shape), place * self.size).reshape(shape)

    def close(self) -> None:
        """Let it go; whoever still looks at a place keeps it."""
        os.close(self.file)
        with suppress(BufferError):
            self._memory.close()
