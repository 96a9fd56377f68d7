"""How much of the machine is ours: CPU time that others take lowers the headroom, our own does not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import psutil

LEAST_HEADROOM = 0.5  # a fair scheduler gives us our turn however busy others are; drift learns the rest


class Reading(NamedTuple):
    """Processor seconds since boot or start: of the whole machine, of its busy part, and of this process."""

    total: float
    busy: float
    ours: float


@dataclass(frozen=True)
class Load:
    """Shares of the machine's processors, in 0..1, over the last interval."""

    busy: float = 0.0
    ours: float = 0.0

    @property
    def headroom(self) -> float:
        """The share that others leave to us, in (0, 1]."""
        return min(1.0, max(LEAST_HEADROOM, 1.0 - max(0.0, self.busy - self.ours)))


def read_processors() -> Reading:
    """The machine's and this process's processor times, as the operating system counts them."""
    times = psutil.cpu_times()
    total = sum(getattr(times, name) for name in ("user", "nice", "system", "idle"))
    total += sum(getattr(times, name, 0.0) for name in ("iowait", "irq", "softirq", "steal"))
    idle = times.idle + getattr(times, "iowait", 0.0)
    own = psutil.Process().cpu_times()
    return Reading(total, total - idle, own.user + own.system)


class Monitor:
    """Turns processor times into load; call `sample` a few times a second."""

    def __init__(self, read: Callable[[], Reading] = read_processors) -> None:
        self._read = read
        self._last = read()
        self.load = Load()

    def sample(self) -> Load:
        """The load since the last sample; unchanged when the clock has not moved."""
        now = self._read()
        total = now.total - self._last.total
        if total > 0:
            self.load = Load((now.busy - self._last.busy) / total, (now.ours - self._last.ours) / total)
            self._last = now
        return self.load
