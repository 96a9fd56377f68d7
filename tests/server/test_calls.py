"""The module calls of mixed batches, on a device that is none and records all the same."""

from collections.abc import Callable
from functools import partial
from itertools import product

import pytest
import torch
from devices import Device
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import stitching
from server.calls import Calls
from server.graphs import RECORD_AT, Buckets
from server.recording import Recorder
from stitching import SNNet
from stitching.anchors import Step

SIZES = Buckets(8).sizes


class Recording:
    """Calls on a fresh device, with what they are made of."""

    def __init__(self) -> None:
        self.device, self.buckets = Device(), Buckets(8)
        self.device.graph_limit = 10**9
        self.recorder = Recorder(self.device)
        self.calls = Calls(self.device, self.buckets, self.recorder)


@pytest.fixture
def recording() -> Recording:
    return Recording()


@pytest.fixture(scope="module")
def model() -> SNNet:
    return stitching.load("digits").eval().requires_grad_(False)


def step(name: str, run: Callable[[Tensor], Tensor]) -> Step:
    return Step(name, name, run, ())


def rows(*numbers: float) -> Tensor:
    return torch.tensor(numbers)[:, None].expand(-1, 3).clone()


def used(calls: Calls, one: Step, x: Tensor) -> Tensor:
    """What a step gives once it has been recorded at these rows."""
    for _ in range(RECORD_AT):
        calls(one, x, False)
    return calls(one, x, False)


def test_a_step_is_recorded_for_its_bucket_and_answers_alike(recording: Recording) -> None:
    double = step("double", lambda x: 2 * x)
    assert torch.equal(used(recording.calls, double, rows(1, 2, 3)), rows(2, 4, 6))
    assert torch.equal(recording.calls(double, rows(5, 6, 7, 8), False), rows(10, 12, 14, 16))  # the same bucket
    assert (recording.recorder.graphs.captured, recording.recorder.graphs.replayed) == (1, 2)
    assert torch.equal(recording.calls(double, rows(1), False), rows(2))  # another one
    assert recording.recorder.graphs.eager["new"] == RECORD_AT + 1


def test_what_does_not_pass_on_at_once_stays_as_it_is(recording: Recording) -> None:
    double, triple = step("double", lambda x: 2 * x), step("triple", lambda x: 3 * x)
    for one in (double, triple):
        used(recording.calls, one, rows(0, 0))
    kept = recording.calls(double, rows(1, 2), False)
    recording.calls(triple, rows(7, 8), False)
    assert torch.equal(kept, rows(2, 4))


def test_what_passes_on_is_not_copied(recording: Recording) -> None:
    double, triple = step("double", lambda x: 2 * x), step("triple", lambda x: 3 * x)
    for one in (double, triple):
        used(recording.calls, one, rows(0, 0))
    passing = recording.calls(double, rows(1, 2), True)
    end = recording.calls(triple, passing, True)
    assert torch.equal(end, rows(6, 12))
    assert end.data_ptr() == passing.data_ptr()


def test_features_that_lie_channels_last_still_do(recording: Recording) -> None:
    laid: list[bool] = []

    def note(x: Tensor) -> Tensor:
        laid.append(x.is_contiguous(memory_format=torch.channels_last))
        return x + 1

    x = torch.arange(2.0 * 3 * 4 * 5).view(2, 3, 4, 5).to(memory_format=torch.channels_last)
    y = used(recording.calls, step("note", note), x)
    assert torch.equal(y, x + 1)
    assert all(laid)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_a_path_is_learnt_once_and_needs_no_second_use(recording: Recording) -> None:
    ran: list[str] = []

    def told(name: str) -> Step:
        def run(x: Tensor) -> Tensor:
            ran.append(name)
            return x + 1

        return step(name, run)

    path = [told("a"), told("b")]
    recording.calls.learn(path, 2, lambda: rows(0, 0))
    assert recording.recorder.graphs.captured == 2
    ran.clear()
    recording.calls.learn(path, 2, lambda: rows(0, 0))
    assert not ran
    recording.calls.learn([*path, told("c")], 2, lambda: rows(0, 0))
    assert recording.recorder.graphs.captured == 3


def test_steps_that_cannot_be_recorded_run_as_they_are(recording: Recording) -> None:
    recording.device.refuses = RuntimeError("operation not permitted when stream is capturing")
    double = step("double", lambda x: 2 * x)
    assert torch.equal(used(recording.calls, double, rows(1, 2)), rows(2, 4))
    assert recording.recorder.graphs.off
    assert recording.recorder.graphs.eager == {"new": RECORD_AT, "refused": 1}


@settings(max_examples=15)
@given(st.lists(st.lists(st.integers(0, 46), min_size=1, max_size=8), min_size=1, max_size=4))
def test_mixtures_answer_as_their_stitches_do_alone(model: SNNet, batches: list[list[int]]) -> None:
    recording, generator = Recording(), torch.Generator().manual_seed(len(batches))
    with torch.inference_mode():
        for ids in batches * RECORD_AT + batches:
            images = torch.randn(len(ids), 3, 64, 64, generator=generator)
            together = model(images, [model.stitches[each] for each in ids], recording.calls)
            for row, each in enumerate(ids):
                alone = model(images[row : row + 1], model.stitches[each])[0]
                torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=1e-4)


def test_after_learning_every_stitch_no_mixture_runs_a_step_eagerly(model: SNNet, recording: Recording) -> None:
    with torch.inference_mode():
        for size, stitch in product(SIZES[::-1], model.stitches):
            recording.calls.learn(model.path(stitch), size, partial(torch.zeros, size, 3, 64, 64))
        for ids in ([0, 1, 2], [3, 9, 27, 40, 46], [5, 5, 5, 5, 5, 5, 5, 6]):
            model(torch.zeros(len(ids), 3, 64, 64), [model.stitches[each] for each in ids], recording.calls)
    assert not recording.recorder.graphs.eager


def test_more_rows_than_any_bucket_has_run_as_they_are(recording: Recording) -> None:
    double = step("double", lambda x: 2 * x)
    recording.buckets.halve()
    x = rows(*range(8))
    for _ in range(RECORD_AT + 1):
        assert torch.equal(recording.calls(double, x, False), 2 * x)
    assert recording.recorder.graphs.captured == 0
