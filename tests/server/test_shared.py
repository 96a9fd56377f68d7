"""Memory of two processes: what one puts the other finds, and nothing beside it."""

import os

import numpy as np
import pytest

from server.shared import Shared


def test_what_is_put_is_found_through_another_mapping() -> None:
    ours = Shared.create(3 * 8 * 8, 2)
    theirs = Shared(os.dup(ours.file), ours.size, ours.places)
    for place in range(2):
        theirs.put(place, np.full((8, 8, 3), place + 7, np.uint8))
    assert [ours.pixels(place, (8, 8, 3)).mean() for place in range(2)] == [7, 8]
    seen = ours.pixels(1, (8, 8, 3))
    theirs.close()
    ours.close()
    assert seen.mean() == 8, "who still looks keeps it"


@pytest.mark.parametrize(
    ("place", "shape"),
    [(2, (1, 1, 1)), (-1, (1, 1, 1)), (0, (8, 8, 4)), (0, (-8, -8, 3)), (0, (2**32, 2**32, 1)), (0, ())],
)
def test_nobody_looks_beyond_a_place(place: int, shape: tuple[int, ...]) -> None:
    memory = Shared.create(3 * 8 * 8, 2)
    with pytest.raises(ValueError, match="there is no"):
        memory.pixels(place, shape)
    memory.close()
