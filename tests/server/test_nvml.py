"""A GPU's load from a made-up NVML: each thing that a real one may refuse, and one that hangs."""

import threading
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from server.nvml import STALE_AFTER, Gpu, GpuLoad, GpuWatch

PID = 4321
UUID = "8f6b2c1e-0000-1111-2222-333344445555"
PATIENCE = 30  # seconds


def error(code: int) -> pynvml.NVMLError:
    return pynvml.NVMLError(code)


class FakeNvml:
    """One GPU. `refused` maps functions to the error code they raise; `samples` is each process's utilisation."""

    NVMLError = pynvml.NVMLError
    NVML_ERROR_NOT_FOUND = pynvml.NVML_ERROR_NOT_FOUND
    NVML_SUCCESS = pynvml.NVML_SUCCESS
    NVML_TEMPERATURE_GPU = pynvml.NVML_TEMPERATURE_GPU

    def __init__(self, refused: Mapping[str, int] | None = None, uuid: str = f"GPU-{UUID}") -> None:
        self.refused, self.uuid = dict(refused or {}), uuid
        self.samples: list[Any] = []
        self.reasons = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if name in self.refused:
                raise error(self.refused[name])
            return getattr(self, f"_{name}")(*arguments)

        return call

    def _nvmlInit(self) -> None:  # noqa: N802 - NVML's names
        pass

    def _nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid != self.uuid:
            raise error(pynvml.NVML_ERROR_NOT_FOUND)
        return "handle"

    def _nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:  # noqa: N802
        return SimpleNamespace(gpu=80, memory=30)

    def _nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:  # noqa: N802
        return SimpleNamespace(used=3_000, total=10_000, free=7_000)

    def _nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        return 250_500

    def _nvmlDeviceGetEnforcedPowerLimit(self, handle: str) -> int:  # noqa: N802
        return 700_000

    def _nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:  # noqa: N802
        return 61

    def _nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:  # noqa: N802
        return self.reasons

    def _nvmlDeviceGetProcessUtilization(self, handle: str, since: int) -> list[Any]:  # noqa: N802
        return self.samples


def sample(pid: int, share: int, moment: int = 1) -> Any:
    return SimpleNamespace(pid=pid, smUtil=share, timeStamp=moment)


def gpu(nvml: FakeNvml, uuid: str = UUID) -> Gpu:
    return Gpu(uuid, nvml, PID)


def test_everything_that_nvml_tells_in_plain_units() -> None:
    nvml = FakeNvml()
    nvml.samples = [sample(PID, 50), sample(7, 20), sample(8, 10)]
    nvml.reasons = pynvml.nvmlClocksEventReasonSwPowerCap | pynvml.nvmlClocksEventReasonGpuIdle
    assert gpu(nvml).read() == GpuLoad(0.8, 0.3, 3_000, 10_000, 250.5, 700.0, 61, ("power cap",))


@pytest.mark.parametrize("given", [UUID, f"GPU-{UUID}"])
def test_the_device_is_found_by_the_uuid_that_cuda_gives(given: str) -> None:
    assert gpu(FakeNvml(), given).read().memory_total == 10_000


def test_a_mig_device_tells_memory_and_no_utilisation() -> None:
    refused = {
        f"nvmlDeviceGet{what}": pynvml.NVML_ERROR_NOT_SUPPORTED
        for what in (
            "UtilizationRates",
            "ProcessUtilization",
            "PowerUsage",
            "EnforcedPowerLimit",
            "CurrentClocksEventReasons",
            "Temperature",
        )
    }
    nvml = FakeNvml(refused, f"MIG-{UUID}")
    assert gpu(nvml).read() == GpuLoad(memory_used=3_000, memory_total=10_000)


@pytest.mark.parametrize(
    "code",
    [
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_UNKNOWN,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    ],
)
def test_whatever_is_refused_is_unknown_and_the_rest_is_told(code: int) -> None:
    questions = [name[1:] for name in vars(FakeNvml) if name.startswith("_nvmlDeviceGet") and "Handle" not in name]
    for question in questions:
        known = gpu(FakeNvml({question: code})).read()
        assert known != GpuLoad()
    assert gpu(FakeNvml(dict.fromkeys(questions, code))).read() == GpuLoad()


@pytest.mark.parametrize(
    "refused",
    [
        {"nvmlInit": pynvml.NVML_ERROR_LIBRARY_NOT_FOUND},
        {"nvmlInit": pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH},
        {"nvmlInit": pynvml.NVML_ERROR_NO_PERMISSION},
        {"nvmlDeviceGetHandleByUUID": pynvml.NVML_ERROR_NOT_FOUND},
    ],
    ids=["no library", "driver replaced", "no permission", "no such GPU"],
)
def test_without_nvml_or_its_device_there_is_no_load(refused: dict[str, int]) -> None:
    watch = GpuWatch(lambda: gpu(FakeNvml(refused)))
    watch.run()  # ends by itself
    assert watch.latest() is None


def test_others_are_unknown_until_our_own_process_is_among_the_samples() -> None:
    nvml = FakeNvml()
    watched = gpu(nvml)
    nvml.samples = [sample(99_999, 70)]  # ourselves, perhaps, by the host's number
    assert watched.read().others is None
    nvml.samples = [sample(PID, 40), sample(7, 10)]
    assert watched.read().others == 0.1
    nvml.samples = [sample(7, 30)]  # we were idle
    assert watched.read().others == 0.3


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_SUCCESS])
def test_no_samples_mean_that_nobody_ran_anything(code: int) -> None:
    nvml = FakeNvml()
    watched = gpu(nvml)
    nvml.samples = [sample(PID, 40)]
    watched.read()
    nvml.refused["nvmlDeviceGetProcessUtilization"] = code
    assert watched.read().others == 0.0


def test_the_newest_sample_of_a_process_counts_and_garbage_does_not() -> None:
    nvml = FakeNvml()
    nvml.samples = [sample(7, 10, 2), sample(7, 90, 1), sample(PID, 5), sample(8, 3_000_000_000)]
    assert gpu(nvml).read().others == 0.1


class Scripted:
    """A GPU whose readings come when the test lets them."""

    def __init__(self) -> None:
        self.asked, self.answer = threading.Semaphore(0), threading.Semaphore(0)

    def read(self) -> GpuLoad:
        self.asked.release()
        assert self.answer.acquire(timeout=PATIENCE)
        return GpuLoad(busy=0.5)


def test_an_nvml_that_hangs_holds_up_nothing_and_its_last_word_expires() -> None:
    now = [100.0]
    scripted = Scripted()
    watch = GpuWatch(lambda: scripted, lambda: now[0], every=0)
    watch.start()
    assert scripted.asked.acquire(timeout=PATIENCE)
    assert watch.latest() is None  # it hangs in its first reading, and this returns
    scripted.answer.release()
    assert scripted.asked.acquire(timeout=PATIENCE)  # the second reading: the first is there
    assert watch.latest() == GpuLoad(busy=0.5)
    now[0] += STALE_AFTER + 1
    assert watch.latest() is None
    watch.stop()
    scripted.answer.release()


def test_a_watch_that_is_stopped_ends() -> None:
    watch = GpuWatch(lambda: gpu(FakeNvml()), every=PATIENCE)
    watch.stop()
    watch.run()
    assert watch.latest() is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_gpu_tells_its_memory() -> None:
    read = Gpu(str(torch.cuda.get_device_properties(0).uuid)).read()
    _, total = torch.cuda.mem_get_info(0)
    assert read.memory_total is not None
    assert read.memory_used is not None
    assert read.memory_total == pytest.approx(total, rel=0.1)
    assert 0 <= read.memory_used <= read.memory_total
