"""What runs passes for the engine, and the plain way of it; staged.py has a GPU's."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from server.staged import Forward, Pass
from stitching.model import plainly


class Runner(Protocol):
    """What runs passes on a device."""

    def run(self, passes: Sequence[Pass]) -> Tensor:
        """The answers of all passes' rows, (rows, 2, classes kept), on the host, in their order."""

    def fault(self) -> str | None:
        """Why the device is of no use any more; None when it still computes."""


class Direct:
    """Runs passes one after another, on a device that needs no staging."""

    def __init__(self, device: torch.device, forward: Forward) -> None:
        self._device, self._forward = device, forward

    def run(self, passes: Sequence[Pass]) -> Tensor:
        """The answers, as computed."""
        return torch.cat([self._answers(images, stitches) for images, stitches in passes])

    def _answers(self, images: Sequence[Tensor], stitches: Sequence[int]) -> Tensor:
        return self._forward(torch.stack(list(images)).to(self._device), stitches, plainly).cpu()

    def fault(self) -> str | None:
        """None: such a device does not break."""
        return None
