"""Staging, buckets, graphs and running out of memory, on a device that is none."""

import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from devices import Device, Endless
from torch import Tensor

from server.recording import SOON
from server.staged import RECORD_WHOLE_AT, Pass, Staged
from stitching.anchors import Step
from stitching.model import plainly
from stitching.wavefront import Through

SIZE, KEPT = 2, 3


class Network:
    """Answers with the image's first pixel and the stitch; has room for so many rows."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.by_steps: list[bool] = []
        self.room = 1000
        self.gate: threading.Event | None = None
        self.entered = threading.Event()

    def __call__(self, pixels: Tensor, stitches: Sequence[int], through: Through[Step]) -> Tensor:
        assert pixels.dtype == torch.uint8
        assert len(pixels) == len(stitches)
        self.entered.set()
        if self.gate:
            assert self.gate.wait(60)
        self.rows.append(len(pixels))
        if len(pixels) > self.room:
            raise torch.OutOfMemoryError("no room")
        self.by_steps.append(through is not plainly)
        each = torch.stack((pixels[:, 0, 0, 0].float(), torch.tensor(stitches).float()), dim=1)
        return each[:, :, None].expand(-1, -1, KEPT)


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def staged(device: Device, network: Network) -> Staged:
    return Staged(device, network, 8, SIZE, KEPT)


def batch(numbers: Sequence[int], stitches: Sequence[int] | int = 7) -> Pass:
    images = [torch.full((3, SIZE, SIZE), number, dtype=torch.uint8) for number in numbers]
    return Pass(images, [stitches] * len(numbers) if isinstance(stitches, int) else stitches)


def answers(staged: Staged, *passes: Pass) -> list[tuple[int, int]]:
    return [(int(row[0, 0]), int(row[1, 0])) for row in staged.run(passes)]


def test_every_row_gets_its_own_answer_by_steps_and_from_a_graph(staged: Staged, network: Network) -> None:
    for first in range(RECORD_WHOLE_AT + 4):
        numbers = [first, first + 100, first + 50]
        assert answers(staged, batch(numbers)) == [(number, 7) for number in numbers]
    assert (staged.graphs.captured, staged.graphs.replayed) == (1, 4)
    assert staged.graphs.bytes == 1100
    # As often as it came, by its steps; once to warm up and from then on at the bucket's four rows, as a whole.
    assert network.rows == [3] * RECORD_WHOLE_AT + [4] * 5
    assert network.by_steps == [True] * RECORD_WHOLE_AT + [False] * 5


def test_one_graph_serves_all_rows_of_its_bucket_and_no_other_stitch(staged: Staged) -> None:
    for rows in (*[3, 4] * (RECORD_WHOLE_AT // 2), 3):
        answers(staged, batch(range(rows)))
    answers(staged, batch(range(4), 8))
    assert (staged.graphs.captured, staged.graphs.replayed) == (1, 1)


def test_the_pool_is_fresh_for_the_first_graph_alone(staged: Staged, device: Device) -> None:
    for stitch in (1, 2):
        staged.learn_whole(stitch, 1)
    assert device.fresh_pools == [True, False]


def test_passes_come_back_in_order_however_many_pieces_they_are(staged: Staged, network: Network) -> None:
    passes = [batch(range(20), 3), batch(range(100, 103), 4), batch(range(200, 209), 5)]
    expected = [(int(image[0, 0, 0]), stitch) for p in passes for image, stitch in zip(*p, strict=True)]
    assert answers(staged, *passes) == expected
    assert max(network.rows) == 8


def test_mixed_rows_run_together_without_a_graph_of_their_own(staged: Staged, network: Network) -> None:
    for _ in range(RECORD_WHOLE_AT + 1):
        assert answers(staged, batch([1, 2, 3], [5, 6, 5])) == [(1, 5), (2, 6), (3, 5)]
    assert set(network.rows) == {3}
    assert staged.graphs.captured == 0


def test_laps_are_those_of_the_bucket_for_every_piece(staged: Staged, device: Device) -> None:
    steps = [torch.neg, torch.abs]
    for rows in (3, 3, 20):
        assert staged.laps(7, rows, steps) == [0.25 * -(-rows // 8)] * 2
    assert device.timed_rows == [4, 8]


def test_what_is_learnt_as_a_whole_needs_no_use(staged: Staged, network: Network) -> None:
    staged.learn_whole(7, 4)
    assert answers(staged, batch([1, 2, 3])) == [(1, 7), (2, 7), (3, 7)]
    assert (staged.graphs.captured, staged.graphs.replayed, network.rows) == (1, 1, [4, 4])
    for rows in (4, 3):
        staged.learn_whole(7, rows)
    assert network.rows == [4, 4]


def test_all_pieces_of_so_many_rows_are_learnt(staged: Staged) -> None:
    staged.learn_whole(7, 11)
    answers(staged, batch(range(11)))
    assert (staged.graphs.captured, staged.graphs.replayed) == (2, 2)


def test_no_room_to_learn_halves_the_largest_bucket(staged: Staged) -> None:
    def prepared(pixels: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("no room")

    staged.learn(8, prepared, [Step("a", "a", torch.neg, ())])
    assert staged.buckets.largest == 4


def test_where_nothing_is_recorded_there_are_no_laps(staged: Staged, device: Device) -> None:
    device.refuses = RuntimeError("operation not permitted when stream is capturing")
    assert staged.laps(7, 3, [torch.neg]) is None
    device.refuses = None
    assert staged.laps(7, 3, [torch.neg]) is None, "some in graphs and some outside would not compare"


def test_out_of_memory_halves_the_largest_bucket_and_goes_on(staged: Staged, network: Network, device: Device) -> None:
    staged.learn_whole(7, 1)
    network.room = 2
    assert answers(staged, batch(range(7), 3)) == [(number, 3) for number in range(7)]
    assert staged.buckets.largest == 2
    assert staged.graphs.find((7, 1)) is None
    assert device.asked == ["settle", *["settle", "release"] * 2]
    assert answers(staged, batch([1])) == [(1, 7)]


def test_no_memory_for_a_single_row_is_the_callers(staged: Staged, network: Network) -> None:
    network.room = 0
    with pytest.raises(torch.OutOfMemoryError):
        staged.run([batch(range(8))])
    assert staged.buckets.largest == 1
    network.room = 1000
    assert answers(staged, batch(range(4))) == [(number, 7) for number in range(4)]  # no slot was lost


def test_no_memory_to_record_leaves_the_key_without_a_graph(staged: Staged, device: Device) -> None:
    device.refuses = torch.OutOfMemoryError("no room")
    for _ in range(RECORD_WHOLE_AT + 2):
        assert answers(staged, batch([9])) == [(9, 7)]
    device.refuses = None
    for stitch in (7, 8):
        staged.learn_whole(stitch, 1)
    assert staged.graphs.captured == 1
    assert staged.graphs.find((7, 1)) is None
    assert staged.buckets.largest == 8


def test_what_cannot_be_recorded_is_not_tried_again(staged: Staged, device: Device) -> None:
    device.refuses = RuntimeError("operation not permitted when stream is capturing\nmore")
    for stitch in (1, 2) * (RECORD_WHOLE_AT + 1):
        assert answers(staged, batch([9], stitch)) == [(9, stitch)]
    assert staged.graphs.off == "operation not permitted when stream is capturing"
    assert staged.graphs.captured == 0


def test_a_failing_pass_loses_no_slot(staged: Staged) -> None:
    wrong = Pass([torch.zeros(3, SIZE + 1, SIZE, dtype=torch.uint8)], [1])
    for _ in range(5):
        with pytest.raises(RuntimeError):
            staged.run([batch(range(9)), wrong])
    assert answers(staged, batch(range(20))) == [(number, 7) for number in range(20)]


def test_the_next_batch_is_copied_in_while_one_computes(staged: Staged, network: Network, device: Device) -> None:
    network.gate = threading.Event()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(answers, staged, batch([1, 2]))
        assert network.entered.wait(60)
        second = threads.submit(answers, staged, batch([3, 4, 5], 8))
        assert device.copied_in.acquire(timeout=60)
        assert device.copied_in.acquire(timeout=60)
        assert not first.done()
        network.gate.set()
        assert first.result(60) == [(1, 7), (2, 7)]
        assert second.result(60) == [(3, 8), (4, 8), (5, 8)]


def test_a_recording_makes_way_for_a_batch_and_can_be_made_another_time(device: Device) -> None:
    endless = Endless(2)
    staged = Staged(device, endless, 8, SIZE, 1)
    assert staged.learn_whole(3, 2)
    with ThreadPoolExecutor(2) as threads:
        recording = threads.submit(staged.learn_whole, 7, 2)
        assert endless.entered.wait(60)
        answered = threads.submit(answers, staged, batch([1, 2]))
        assert answered.result(60) == [(1, 7), (2, 7)]
        assert not recording.result(60)
    assert (staged.graphs.captured, staged.graphs.replayed) == (1, 0)
    assert staged.learn_whole(7, 2)
    assert answers(staged, batch([3, 4])) == [(3, 7), (4, 7)]
    assert (staged.graphs.captured, staged.graphs.replayed) == (2, 1)


def test_two_threads_with_many_pieces_each_neither_mix_nor_wait_for_ever(staged: Staged) -> None:
    def many(offset: int) -> bool:
        numbers = [offset + number for number in range(25)]
        return all(answers(staged, batch(numbers, offset)) == [(n, offset) for n in numbers] for _ in range(20))

    with ThreadPoolExecutor(3) as threads:
        assert all(threads.map(many, (0, 50, 100), timeout=60))


def test_the_drivers_fault_is_told(staged: Staged) -> None:
    assert staged.fault() == "fell over"


def test_whoever_records_is_not_kept_waiting_by_other_threads(device: Device, staged: Staged) -> None:
    usual, meanwhile = sys.getswitchinterval(), list[float]()
    device.on_record = lambda: meanwhile.append(sys.getswitchinterval())
    staged.learn_whole(7, 1)
    device.refuses = torch.OutOfMemoryError("no room")
    staged.learn_whole(8, 1)
    assert meanwhile == [pytest.approx(SOON)] * 2
    assert sys.getswitchinterval() == usual
    assert usual > 10 * SOON
