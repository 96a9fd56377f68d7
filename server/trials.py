"""Timing a model's blocks before it serves: those of one width are alike, so one of each stands for all."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from stitching import SNNet
from stitching.anchors import Step

ROUNDS, FEWEST = 5, 2
ENOUGH = 0.25  # seconds of trials, after which there are no more rounds than the fewest

Kind = TypeVar("Kind")
Clock = Callable[[], float]


class Sample(NamedTuple):
    """A block, features (rows, ...) that it takes, and how many blocks of the model have its width."""

    step: Step
    features: Tensor
    alike: int


@torch.inference_mode()
def samples(model: SNNet, rows: int) -> Iterator[Sample]:
    """The first block of each width of each anchor."""
    size = model.family.preprocessing.size
    like = next(model.parameters())
    for seam in model.seams:
        widths = seam.widths[: seam.depth]
        firsts = {width: widths.index(width) for width in widths}
        x = seam.stem(torch.zeros(rows, 3, size, size, device=like.device, dtype=like.dtype))
        for number, step in enumerate(seam.blocks[: max(firsts.values()) + 1]):
            if firsts[widths[number]] == number:
                yield Sample(step, x, widths.count(widths[number]))
            x = step(x)


@torch.inference_mode()
def in_turns(
    trials: Mapping[Kind, Callable[[], object]],
    clock: Clock = time.perf_counter,
    ready: Callable[[Kind], object] = lambda _: None,
) -> dict[Kind, list[float]]:
    """Seconds of each; every round runs each once, after `ready`, and the first round warms up.

    Long trials have fewer rounds: what lasts is measured well enough, and somebody waits for the server.
    """
    took: dict[Kind, list[float]] = {kind: [] for kind in trials}
    for turn in range(ROUNDS + 1):
        if turn > FEWEST and sum(map(sum, took.values())) > ENOUGH:
            break
        for kind, trial in trials.items():
            ready(kind)
            start = clock()
            trial()
            if turn:
                took[kind].append(clock() - start)
    return took
