"""Laps on the device at hand."""

import time

import pytest
import torch

from stitching.stopwatch import Stopwatch


def test_laps_are_the_seconds_between_marks() -> None:
    before = time.perf_counter()
    watch = Stopwatch(torch.device("cpu"))
    time.sleep(0.01)
    watch.lap()
    watch.lap()
    first, second = watch.laps()
    assert first >= 0.01
    assert second >= 0
    assert first + second <= time.perf_counter() - before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_a_lap_is_the_devices_work_not_its_launch() -> None:
    device = torch.device("cuda")
    x = torch.randn(4096, 4096, device=device)
    torch.cuda.synchronize()
    watch = Stopwatch(device)
    for _ in range(50):
        x @ x
    watch.lap()
    launched = time.perf_counter()
    (lap,) = watch.laps()
    waited = time.perf_counter() - launched
    assert lap >= waited
