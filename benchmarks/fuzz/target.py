"""What a fuzz target is."""

import random
from collections.abc import Callable
from dataclasses import dataclass


def same(data: bytes, _: random.Random) -> bytes:
    """Repairs nothing."""
    return data


@dataclass(frozen=True)
class Target:
    """A function of bytes, the errors it may raise, and valid files; `repair` mends checksums after a mutation."""

    run: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]
    repair: Callable[[bytes, random.Random], bytes] = same
