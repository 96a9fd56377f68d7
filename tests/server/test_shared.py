"""Memory of two processes: what one puts the other takes, and nothing beside it."""

import os

import numpy as np
import pytest

from server.shared import Shared


def image(level: int, colours: int = 3) -> np.ndarray:
    return np.full((colours, 8, 8), level, np.uint8)


def test_what_is_put_is_taken_through_another_mapping() -> None:
    ours = Shared.create(8, 3)
    theirs = Shared(os.dup(ours.file), ours.size, ours.places)
    for place, colours in ((0, 3), (1, 1), (2, 3)):
        theirs.put(place, image(place + 7, colours))
    assert [ours.look(place).tolist() for place in range(3)] == [image(level).tolist() for level in (7, 8, 9)]
    theirs.close()
    ours.close()


def test_what_is_looked_at_outlives_the_memory() -> None:
    memory = Shared.create(8, 2)
    memory.put(1, image(7))
    seen = memory.look(1)
    memory.close()
    assert seen.tolist() == image(7).tolist()


@pytest.mark.parametrize("place", [2, -1])
def test_there_is_nothing_beyond_the_places(place: int) -> None:
    memory = Shared.create(8, 2)
    with pytest.raises(ValueError, match="there is no place"):
        memory.look(place)
    with pytest.raises(ValueError, match="there is no place"):
        memory.put(place, image(1))
    memory.close()


@pytest.mark.parametrize("shape", [(3, 8, 9), (4, 8, 8), (3, 9, 8)])
def test_an_image_that_does_not_fit_is_not_put(shape: tuple[int, ...]) -> None:
    memory = Shared.create(8, 2)
    memory.put(1, image(5))
    with pytest.raises(ValueError, match="broadcast"):
        memory.put(0, np.zeros(shape, np.uint8))
    assert memory.look(1).min() == 5
    memory.close()
