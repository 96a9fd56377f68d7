"""Memory that a front end and the engine's process share: one puts images there, the other takes them."""

import mmap
import os
import tempfile
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray


class Shared:
    """`places` of an image each, uint8 (3, size, size), in a nameless file; one never put takes no memory."""

    def __init__(self, file: int, size: int, places: int) -> None:
        """On an open file, which it takes; `create` makes one."""
        self.file, self.size, self.places = file, size, places
        self._shape = 3, size, size
        self._memory = mmap.mmap(file, places * 3 * size * size)

    @classmethod
    def create(cls, size: int, places: int) -> "Shared":
        """New memory."""
        if hasattr(os, "memfd_create"):
            file = os.memfd_create("stitchserve")
        else:
            with tempfile.TemporaryFile() as named:
                file = os.dup(named.fileno())
        os.ftruncate(file, places * 3 * size * size)
        return cls(file, size, places)

    def put(self, place: int, pixels: NDArray[np.uint8]) -> None:
        """Copy an image into a place, (3, size, size) or, if gray, (1, size, size). ValueError if it does not fit."""
        self.look(place)[:] = pixels

    def look(self, place: int) -> NDArray[np.uint8]:
        """The image in a place, as long as nothing else is put there. ValueError where there is no such place."""
        if not 0 <= place < self.places:
            raise ValueError(f"there is no place {place}")
        count = 3 * self.size**2
        return np.frombuffer(self._memory, np.uint8, count, place * count).reshape(self._shape)

    def close(self) -> None:
        """Let it go; what is looked at stays until it is not."""
        os.close(self.file)
        with suppress(BufferError):
            self._memory.close()
