"""The engine on a CUDA device; skipped where there is none. What needs no device is in test_staged.py."""

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from devices import Endless

from lookup_tables.table import LookupTable, folder
from server.cuda import Cuda
from server.engine import Engine, Ranking
from server.latencies import measured
from server.staged import Pass, Staged
from stitching.digits import Digits

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def images(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator) for _ in range(count)]


def on_cpu() -> Engine:
    return Engine.load("digits", None, "cpu", dtype="float32")


def on_cuda(**options: Any) -> Engine:
    return Engine.load("digits", None, "cuda", **options)


def agree(here: Sequence[Ranking], there: Sequence[Ranking], tolerance: float) -> None:
    for one, other in zip(here, there, strict=True):
        assert dict(zip(*one, strict=True)) == pytest.approx(dict(zip(*other, strict=True)), abs=tolerance)


def test_cuda_agrees_with_the_cpu_in_float32() -> None:
    batch, stitches = images(16), [0, 1, 2, 30] * 4
    agree(on_cpu().run(batch, stitches), on_cuda(dtype="float32").run(batch, stitches), 1e-3)


def test_recorded_graphs_answer_as_eager_runs_do_whatever_the_rows() -> None:
    there = on_cuda(max_batch=8)
    assert there.staged
    for rows in (3, 4, 3, 1, 8, 7, 5, 8, 3, 1, 1, 20):
        batch = images(rows)
        there.staged.learn_whole(30, rows)
        eager = on_cpu().run(batch, [30] * rows)
        agree(eager, there.run(batch, [30] * rows), 0.05)
    assert there.staged.graphs.captured >= 3
    assert there.staged.graphs.replayed >= 3
    assert there.staged.graphs.off is None
    assert 0 < there.staged.graphs.bytes < there.staged.graphs.limit


def test_graphs_of_several_stitches_share_their_memory_in_any_order() -> None:
    there = on_cuda(max_batch=8)
    batch = images(8)
    expected = {stitch: there.run(batch, [stitch] * 8) for stitch in (0, 1, 2, 30)}
    there.warm_up(list(expected))
    for record in there.recordings(list(expected)):
        record()
    for stitch in (2, 0, 30, 1, 0, 2, 1, 30, 30, 0):
        agree(expected[stitch], there.run(batch, [stitch] * 8), 0.01)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("auto", 0.01)])
def test_mixtures_answer_as_their_stitches_do_alone_once_their_calls_are_recorded(dtype: Any, tolerance: float) -> None:
    there = on_cuda(max_batch=8, dtype=dtype)
    assert there.staged
    there.warm_up([0, 1, 2, 9, 30, 46])
    before = dict(there.staged.graphs.eager)
    for stitches in ([0, 30], [46, 9, 2, 1, 0, 30, 9, 46], [1, 1, 9], [30, 2, 46, 0, 9]):
        batch = images(len(stitches))
        alone = [there.run([image], [stitch])[0] for image, stitch in zip(batch, stitches, strict=True)]
        agree(alone, there.run(batch, stitches), tolerance)
    assert there.mixed == {"merged": 4}
    assert dict(there.staged.graphs.eager) == before


def test_modules_are_timed_as_graphs_run_them() -> None:
    there = on_cuda(max_batch=8)
    there.warm_up([30])
    for rows in (1, 8, 20):
        for _ in range(3):
            laps = there.run_timed(30, rows)
        assert len(laps) == len(there.model.path(there.model.stitches[30])) + 2
        assert all(seconds > 0 for _, seconds in laps)
        assert sum(seconds for _, seconds in laps[1:]) < 0.02
    agree(on_cuda(max_batch=8).run(images(3), [30] * 3), there.run(images(3), [30] * 3), 0.01)


def test_launching_the_calls_of_a_mixture_is_measured() -> None:
    there, table = on_cuda(max_batch=8), LookupTable.load(folder("digits"))
    latency = measured(there, table, [], (1, 2), rounds=3)
    assert 1e-6 < latency.launch < 0.01
    pair = {entry.stitch: 1 for entry in table.frontier()[:2]}
    computing = replace(latency, modules=latency.modules[:-1])
    longer, shorter = (replace(table, latency=each).merged_seconds(pair) for each in (latency, computing))
    assert longer > shorter


@pytest.mark.parametrize("time", [3, 4], ids=["run first", "recorded"])
def test_a_recording_that_makes_way_leaves_the_device_as_it_was(time: int) -> None:
    endless = Endless(time)
    staged = Staged(Cuda(torch.device("cuda")), endless, 8, 64, 1)
    batch = Pass(images(2), [7, 7])
    expected = [[image[0, 0, 0], 7] for image in batch.images]
    assert staged.learn_whole(3, 2)
    with ThreadPoolExecutor(2) as threads:
        recording = threads.submit(staged.learn_whole, 7, 2)
        assert endless.entered.wait(60)
        assert threads.submit(staged.run, [batch]).result(60)[:, :, 0].tolist() == expected
        assert not recording.result(60)
    assert staged.learn_whole(7, 2)
    assert staged.run([batch])[:, :, 0].tolist() == expected
    assert (staged.graphs.captured, staged.graphs.replayed, staged.graphs.off) == (2, 1, None)


def test_two_threads_answer_as_one_does_on_cuda() -> None:
    there = on_cuda(max_batch=4)
    batch = images(11)
    expected = {stitch: there.run(batch, [stitch] * 11) for stitch in (0, 2)}
    with ThreadPoolExecutor(there.lanes) as threads:
        for stitch, found in zip(
            [0, 2] * 20, threads.map(lambda stitch: there.run(batch, [stitch] * 11), [0, 2] * 20), strict=True
        ):
            agree(expected[stitch], found, 0.01)


def test_float16_gives_the_classes_of_float32_on_cuda() -> None:
    narrow, wide = on_cuda(), on_cuda(dtype="float32")
    p = wide.model.family.preprocessing
    mean, std = torch.tensor(p.mean).view(3, 1, 1), torch.tensor(p.std).view(3, 1, 1)
    same = total = 0
    for pictures, _ in Digits(p.mean, p.std, held_out=2000).held_out("test", 50):
        batch = list(((pictures * std + mean) * 255).round().to(torch.uint8))
        for stitch in (0, 1, 2, 30):
            pairs = zip(narrow.run(batch, [stitch] * 50), wide.run(batch, [stitch] * 50), strict=True)
            same += sum(one.indices[0] == other.indices[0] for one, other in pairs)
            total += 50
    assert same / total >= 0.995


def test_running_out_of_memory_halves_the_largest_bucket_and_goes_on() -> None:
    code = """
import torch
from server.engine import Engine
engine = Engine.load("digits", None, "cuda", max_batch=1024)
image = torch.zeros(3, 64, 64, dtype=torch.uint8)
expected = engine.run([image], [2])[0].indices[0]
torch.cuda.empty_cache()
room = torch.cuda.memory_reserved() + 48 * 2**20
torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
found = engine.run([image] * 1024, [2] * 1024)
assert len(found) == 1024 and all(each.indices[0] == expected for each in found)
print(engine.staged.buckets.halved > 0, engine.broken)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.stdout.strip() == b"True None", done.stderr


def test_a_wrong_index_on_the_device_breaks_the_engine_for_good() -> None:
    code = """
import torch
from server.engine import Engine
engine = Engine.load("digits", None, "cuda")
image = torch.zeros(3, 64, 64, dtype=torch.uint8)
engine.run([image], [0])
torch.zeros(2, device="cuda")[torch.tensor([7], device="cuda")]
try:
    engine.run([image], [0])
except RuntimeError:
    print("broken" if engine.broken else "whole")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.stdout.strip() == b"broken"
