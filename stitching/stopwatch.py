"""Times between moments on a device, without making it wait."""

import time
from itertools import pairwise

import torch


class Stopwatch:
    """Starts when it is made. On CUDA the moments are events in the stream, elsewhere readings of the clock."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._events: list[torch.cuda.Event] = []
        self._readings: list[float] = []
        self.lap()

    def lap(self) -> None:
        """The device's work so far ends a lap."""
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self._events.append(event)
        else:
            self._readings.append(time.perf_counter())

    def laps(self) -> list[float]:
        """Seconds of each lap; waits for the device to finish the last one."""
        if self._cuda:
            self._events[-1].synchronize()
            return [a.elapsed_time(b) / 1e3 for a, b in pairwise(self._events)]
        return [b - a for a, b in pairwise(self._readings)]
