"""stitchserve around an engine and a decoder that do nothing: python -m benchmarks.peers.nothing [options of serve]

HTTP, admission, the queue, deadlines, the controller and metrics are as always. What takes no time asks no thread.
"""

import sys

import numpy as np
import torch

from lookup_tables.costs import Way
from server import service
from server.cli import main
from server.engine import Engine, Image, Ranking

IMAGE = torch.zeros(3, 64, 64, dtype=torch.uint8)
RANKING = Ranking(np.zeros(5, np.int64), np.full(5, 0.2, np.float32))


def run(_: Engine, images: list[Image], __: list[int], way: Way | None = None) -> list[Ranking]:  # noqa: ARG001 - as `Engine.run` has it
    """An answer for each."""
    return [RANKING] * len(images)


def decode(_: bytes, **__: object) -> Image:
    """Always alike."""
    return IMAGE


if __name__ == "__main__":
    Engine.run = run
    service.decode = decode
    service.is_quick = lambda _: True
    main(["serve", *sys.argv[1:]])
