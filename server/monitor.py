"""How much of the machine is ours: what others take of its time and memory lowers it, what we take does not."""

import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import psutil

from server.cgroups import Cgroups, Quota, allowed_processors
from server.nvml import GpuLoad

LEAST_HEADROOM = 0.5  # a fair scheduler gives us our turn however busy others are; drift learns the rest
MIN_MEMORY = 256_000_000  # bytes


class Reading(NamedTuple):
    """What was used by a moment, in CPU seconds, and what memory was left then, in bytes.

    `ours` is the time of this process and its helpers, `busy` everybody's on the `processors` that this process may be
    scheduled on; `quotas` are the limits that hold beside those.
    """

    moment: float
    ours: float
    busy: float
    processors: int = 1
    quotas: tuple[Quota, ...] = ()
    memory: int = 0

    @property
    def cpus(self) -> float:
        """How many processors this process may use at once."""
        return min([self.processors, *(quota.cpus for quota in self.quotas)])


@dataclass(frozen=True)
class Load:
    """What the machine was used for over the last interval, in shares of 0..1, and what is left to us.

    `busy` and `ours` are shares of the processors we may be scheduled on. `cpus` is how many we may use at once: fewer
    where a cgroup has a quota, of whose periods `throttled` ended with all of it spent. `headroom`, in (0, 1], is the
    share of `cpus` (of the GPU, where the engine is there) that others leave to us. `memory_available` is in bytes; it
    is short when what comes next might not find room.
    """

    busy: float = 0.0
    ours: float = 0.0
    cpus: float = 1.0
    headroom: float = 1.0
    throttled: float = 0.0
    memory_available: int = 0
    memory_short: bool = False
    gpu: GpuLoad | None = None


class Machine:
    """Reads processor times and memory as the operating system and the cgroups count them.

    What `helpers`, processes by their ids, use is ours; they are children of this one.
    """

    def __init__(self, helpers: Collection[int] = ()) -> None:
        self._helpers = helpers
        self._cgroups = Cgroups()

    def read(self) -> Reading:
        """The reading of this moment. Raises OSError when that cannot be had, as without free file descriptors."""
        every = psutil.cpu_times(percpu=True)
        # Fewer than the affinity names, where a container is shown its own processors alone.
        mine = [every[number] for number in allowed_processors() if number < len(every)] or every
        left, inside = psutil.virtual_memory().available, self._cgroups.memory_left()
        return Reading(
            moment=time.monotonic(),
            ours=time.process_time() + self._helped(),
            busy=sum(map(_busy, mine)),
            processors=len(mine),
            quotas=self._cgroups.quotas(),
            memory=left if inside is None else min(left, inside),
        )

    def _helped(self) -> float:
        """CPU seconds of the helpers, those of earlier ones included."""
        times = os.times()
        seconds = times.children_user + times.children_system
        for process in self._helpers:
            with suppress(psutil.Error):  # it has just gone
                used = psutil.Process(process).cpu_times()
                seconds += used.user + used.system
        return seconds


class Monitor:
    """Turns readings into load; call `sample` a few times a second.

    With `gpu`, which gives a GPU's load if that is known, the headroom is the GPU's. Memory is short below `min_memory`
    bytes.
    """

    def __init__(
        self,
        min_memory: int = MIN_MEMORY,
        gpu: Callable[[], GpuLoad | None] | None = None,
        read: Callable[[], Reading] | None = None,
    ) -> None:
        self._min_memory, self._gpu, self._read = min_memory, gpu, read or Machine().read
        self._last = self._read()
        self.load = self._load(self._last)

    def sample(self) -> Load:
        """The load since the last sample; what cannot be read now stays as it was."""
        try:
            now = self._read()
        except OSError:
            return self.load
        if now.moment > self._last.moment:
            self.load, self._last = self._load(now), now
        return self.load

    def _load(self, now: Reading) -> Load:
        before = self._last
        seconds = max(now.moment - before.moment, 1e-9)
        gpu = self._gpu() if self._gpu else None
        return Load(
            busy=_share((now.busy - before.busy) / seconds / now.processors),
            ours=_share((now.ours - before.ours) / seconds / now.processors),
            cpus=now.cpus,
            headroom=_gpu_headroom(gpu) if self._gpu else _headroom(before, now),
            throttled=max((_throttled(*pair) for pair in _quotas(before, now)), default=0.0),
            memory_available=now.memory,
            memory_short=now.memory < self._min_memory,
            gpu=gpu,
        )


def _headroom(before: Reading, now: Reading) -> float:
    """The share of the processors we may use that others left to us.

    Others matter only where they take of our share: on a host with idle processors a container's quota is all ours.
    """
    seconds = max(now.moment - before.moment, 1e-9)
    ours = now.ours - before.ours
    limits = [(float(now.processors), now.busy - before.busy)]
    limits += [(quota.cpus, quota.used - earlier.used) for earlier, quota in _quotas(before, now)]
    left = min(limit - max(0.0, used - ours) / seconds for limit, used in limits)
    return min(1.0, max(LEAST_HEADROOM, left / now.cpus))


def _gpu_headroom(gpu: GpuLoad | None) -> float:
    others = gpu.others if gpu and gpu.others is not None else 0.0
    return max(LEAST_HEADROOM, 1.0 - others)


def _busy(times: Any) -> float:
    """CPU seconds for which a processor was taken, stolen by the host included."""
    return float(sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal")))


def _quotas(before: Reading, now: Reading) -> list[tuple[Quota, Quota]]:
    """The quotas of two readings side by side; none while they change."""
    same = len(before.quotas) == len(now.quotas)
    return list(zip(before.quotas, now.quotas, strict=True)) if same else []


def _throttled(before: Quota, now: Quota) -> float:
    periods = now.periods - before.periods
    return _share((now.throttled - before.throttled) / periods) if periods > 0 else 0.0


def _share(ratio: float) -> float:
    return min(1.0, max(0.0, ratio))  # the clocks tick apart
