"""A GPU's load, as NVML tells it. Nothing here is needed to serve: what NVML does not tell is None.

NVML is missing without the driver, tells no utilisation under MIG, wants permission for some readings, knows other
process ids than ours in a container, and a sick driver makes it hang. So it is asked from a thread that nobody awaits.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol, TypeVar

import pynvml

log = logging.getLogger(__name__)

EVERY = 0.5  # seconds between two readings; NVML's own sampling period is 1/6 to 1 s
STALE_AFTER = 3.0  # seconds without a reading after which nothing is known
SAMPLE_WINDOW = 1.0  # seconds of process samples that count as now

THROTTLES = {
    pynvml.nvmlClocksEventReasonSwPowerCap: "power cap",
    pynvml.nvmlClocksEventReasonHwSlowdown: "hardware slowdown",
    pynvml.nvmlClocksEventReasonSyncBoost: "sync boost",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "temperature",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "temperature, hardware",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "power brake",
}

Value = TypeVar("Value")


@dataclass(frozen=True)
class GpuLoad:
    """Shares of time in 0..1, bytes, watts, degrees Celsius; None where NVML does not tell.

    `busy` is the share of time in which any process ran something, `others` that of processes other than ours;
    `throttled` why the clocks are held down.
    """

    busy: float | None = None
    others: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    power: float | None = None
    power_limit: float | None = None
    temperature: float | None = None
    throttled: tuple[str, ...] | None = None


class Gpu:
    """One GPU or MIG device, found by its UUID. Every call may take milliseconds."""

    def __init__(self, uuid: str, nvml: ModuleType | Any = pynvml, pid: int | None = None) -> None:
        """`uuid` as CUDA gives it, with or without `GPU-` or `MIG-`. Raises NVMLError without NVML or that device."""
        self._nvml, self._pid = nvml, os.getpid() if pid is None else pid
        self._ours_seen = False
        nvml.nvmlInit()
        self._handle = self._find(uuid)

    def read(self) -> GpuLoad:
        """The load now; what NVML refuses to tell is None."""
        nvml = self._nvml
        utilisation = self._ask(nvml.nvmlDeviceGetUtilizationRates)
        memory = self._ask(nvml.nvmlDeviceGetMemoryInfo)
        power = self._ask(nvml.nvmlDeviceGetPowerUsage)
        power_limit = self._ask(nvml.nvmlDeviceGetEnforcedPowerLimit)
        reasons = self._ask(nvml.nvmlDeviceGetCurrentClocksEventReasons)
        return GpuLoad(
            busy=None if utilisation is None else utilisation.gpu / 100,
            others=self._others(),
            memory_used=None if memory is None else memory.used,
            memory_total=None if memory is None else memory.total,
            power=None if power is None else power / 1000,
            power_limit=None if power_limit is None else power_limit / 1000,
            temperature=self._ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
            throttled=None if reasons is None else _throttles(reasons),
        )

    def _find(self, uuid: str) -> Any:
        bare = uuid.removeprefix("GPU-").removeprefix("MIG-")
        try:
            return self._nvml.nvmlDeviceGetHandleByUUID(f"MIG-{bare}")
        except self._nvml.NVMLError:
            return self._nvml.nvmlDeviceGetHandleByUUID(f"GPU-{bare}")

    def _ask(self, question: Callable[..., Value], *arguments: object) -> Value | None:
        try:
            return question(self._handle, *arguments)
        except self._nvml.NVMLError:
            return None

    def _others(self) -> float | None:
        """The share of time that other processes took; None until our own was seen among the samples.

        In a container the samples may carry the host's process ids, and then ours look like another's.
        """
        since = int((time.time() - SAMPLE_WINDOW) * 1e6)
        try:
            samples = self._nvml.nvmlDeviceGetProcessUtilization(self._handle, since)
        except self._nvml.NVMLError as error:
            # Nobody ran anything: NVML says "not found", or success with nothing, which the binding raises.
            if error.value not in (self._nvml.NVML_ERROR_NOT_FOUND, self._nvml.NVML_SUCCESS):
                return None
            samples = []
        # Each process's newest; drivers leave garbage above 100 in samples they did not take.
        newest = {s.pid: s.smUtil for s in sorted(samples, key=lambda s: s.timeStamp) if s.smUtil <= 100}
        self._ours_seen |= self._pid in newest
        others = sum(share for pid, share in newest.items() if pid != self._pid)
        return min(1.0, others / 100) if self._ours_seen else None


def _throttles(reasons: int) -> tuple[str, ...]:
    return tuple(name for bit, name in THROTTLES.items() if reasons & bit)


class Readable(Protocol):
    """What a watch reads."""

    def read(self) -> GpuLoad:
        """The load now."""


class GpuWatch:
    """Reads a GPU's load over and over on a daemon thread, so that an NVML that hangs holds up nothing.

    `find` gives the GPU, on that thread, or raises NVMLError where there is none to be read.
    """

    def __init__(
        self, find: Callable[[], Readable], clock: Callable[[], float] = time.monotonic, every: float = EVERY
    ) -> None:
        self._find, self._clock, self._every = find, clock, every
        self._last: tuple[float, GpuLoad] | None = None
        self._stopped = threading.Event()

    def latest(self) -> GpuLoad | None:
        """The last reading; None when there is none, or it is old."""
        last = self._last
        return last[1] if last and self._clock() - last[0] <= STALE_AFTER else None

    def start(self) -> None:
        """Begin reading."""
        threading.Thread(target=self.run, name="nvml", daemon=True).start()

    def stop(self) -> None:
        """End after the reading that is under way, without waiting for it."""
        self._stopped.set()

    def run(self) -> None:
        """What the thread does; returns after `stop`, or at once where there is nothing to read."""
        try:
            gpu = self._find()
        except pynvml.NVMLError as error:
            log.info("no load of the GPU: %s", error)
            return
        while not self._stopped.is_set():
            self._last = (self._clock(), gpu.read())
            self._stopped.wait(self._every)
