"""The engine on the shipped network."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from devices import Device

import stitching
from lookup_tables.modules import INPUT, OUTPUT
from lookup_tables.table import LookupTable, folder
from server.dtype import Setting
from server.engine import Engine
from server.runner import Direct
from server.staged import Forward, Pass, Staged


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load("digits", None, "cpu")


def images(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator) for _ in range(count)]


def test_a_ranking_is_the_models_softmax(engine: Engine) -> None:
    (image,) = images(1)
    model = stitching.load("digits")
    p = model.family.preprocessing
    mean, std = torch.tensor(p.mean).view(3, 1, 1), torch.tensor(p.std).view(3, 1, 1)
    with torch.inference_mode():
        expected = model(((image / 255 - mean) / std)[None], model.stitches[5]).softmax(1)[0]
    (ranking,) = engine.run([image], [5])
    assert len(ranking.indices) == 100
    assert list(ranking.probabilities) == sorted(ranking.probabilities, reverse=True)
    torch.testing.assert_close(torch.tensor(ranking.probabilities), expected[ranking.indices], atol=1e-6, rtol=1e-4)


def test_a_mixed_batch_gives_each_row_its_own_stitch(engine: Engine) -> None:
    batch, stitches = images(12), [0, 30, 1, 2, 30, 5, 12, 0, 46, 20, 2, 8]
    together = engine.run(batch, stitches)
    for image, stitch, ranking in zip(batch, stitches, together, strict=True):
        (alone,) = engine.run([image], [stitch])
        assert ranking.indices[0] == alone.indices[0]
        assert ranking.probabilities == pytest.approx(alone.probabilities, abs=1e-5)


def test_a_timed_batch_tells_the_seconds_of_every_module_it_passes(engine: Engine) -> None:
    table = LookupTable.load(folder("digits"))
    assert table.modules
    before = time.perf_counter()
    laps = engine.run_timed(20, 3)
    took = time.perf_counter() - before
    assert [kind for kind, _ in laps[1:-1]] == [kind for _, kind in table.modules.walk(table.entry(20).route)]
    assert (laps[0][0], laps[-1][0]) == (INPUT, OUTPUT)
    assert all(seconds > 0 for _, seconds in laps)
    assert sum(seconds for _, seconds in laps) < took


def test_a_missing_checkpoint_says_what_to_do() -> None:
    with pytest.raises(stitching.CheckpointError, match="no weights ship with family 'deit_ti_s_b'"):
        Engine.load("deit_ti_s_b", None, "cpu")
    with pytest.raises(stitching.CheckpointError, match=r"nowhere\.pth: no such file"):
        Engine.load("digits", Path("nowhere.pth"), "cpu")


def exact() -> Engine:
    return Engine.load("digits", None, "cpu", dtype="float32")


def test_float32_that_was_asked_for_is_the_models_to_the_last_bit() -> None:
    (image,) = images(1)
    model = stitching.load("digits")
    p = model.family.preprocessing
    std = torch.tensor(p.std).view(1, 3, 1, 1)
    shift = -torch.tensor(p.mean).view(1, 3, 1, 1) / std
    with torch.inference_mode():
        pixels = image[None].float().mul_(1 / (255 * std)).add_(shift)
        top = model(pixels, model.stitches[30]).softmax(1).topk(100)
    (ranking,) = exact().run([image], [30])
    assert [values.tolist() for values in ranking] == [top.indices[0].tolist(), top.values[0].tolist()]


@pytest.mark.parametrize("dtype", ["auto", "float16", "float32"])
@torch.inference_mode()
def test_last_blocks_give_their_heads_one_token_unless_every_bit_was_asked_for(dtype: Setting) -> None:
    engine = Engine.load("digits", None, "cpu", dtype=dtype)
    for seam in engine.model.seams:
        assert seam.last
        given = seam.last.run(torch.randn(2, 65, seam.widths[-1]).to(engine.precision.variant.dtype))
        assert given.shape == (2, 65 if dtype == "float32" else 1, seam.widths[-1])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bits_give_probabilities_near_those_of_float32(engine: Engine, dtype: Setting) -> None:
    narrow = Engine.load("digits", None, "cpu", dtype=dtype)
    assert narrow.conditions["dtype"] == dtype
    batch, stitches = images(4), [0, 2, 30, 2]
    for here, there in zip(engine.run(batch, stitches), narrow.run(batch, stitches), strict=True):
        assert dict(zip(*here, strict=True)) == pytest.approx(dict(zip(*there, strict=True)), abs=0.05)


def test_the_conditions_tell_the_number_format_apart(engine: Engine) -> None:
    assert exact().conditions["dtype"] == engine.conditions["dtype"] == "float32"
    assert exact().conditions != engine.conditions


class Priced:
    """Says what a mixture costs either way."""

    def __init__(self, merged: float, grouped: float) -> None:
        self.merged, self.grouped = merged, grouped
        self.asked: list[Mapping[int, int]] = []

    def merged_seconds(self, counts: Mapping[int, int]) -> float:
        self.asked.append(counts)
        return self.merged

    def grouped_seconds(self, counts: Mapping[int, int]) -> float:
        return self.grouped


class Counted(Direct):
    """Keeps what each pass ran."""

    def __init__(self, device: torch.device, forward: Forward) -> None:
        super().__init__(device, forward)
        self.passes: list[list[int]] = []
        self.failure: RuntimeError | None = None
        self.reason: str | None = None

    def run(self, passes: Sequence[Pass]) -> torch.Tensor:
        self.passes += [list(stitches) for _, stitches in passes]
        if self.failure:
            raise self.failure
        return super().run(passes)

    def fault(self) -> str | None:
        return self.reason


@pytest.fixture
def counted() -> Engine:
    return Engine(stitching.load("digits"), torch.device("cpu"), runner=Counted)


def passes(engine: Engine) -> list[list[int]]:
    assert isinstance(engine.runner, Counted)
    return engine.runner.passes


@pytest.mark.parametrize(
    ("costs", "ran"),
    [
        (None, [[5, 7, 5, 9]]),
        (Priced(1.0, 2.0), [[5, 7, 5, 9]]),
        (Priced(1.0, 1.0), [[5, 7, 5, 9]]),
        (Priced(2.0, 1.0), [[5, 5], [7], [9]]),
    ],
)
def test_a_mixture_runs_the_way_that_costs_less(counted: Engine, costs: Priced | None, ran: list[list[int]]) -> None:
    batch, stitches = images(4), [5, 7, 5, 9]
    counted.costs = costs
    together = counted.run(batch, stitches)
    assert passes(counted) == ran
    assert counted.mixed == {"merged" if len(ran) == 1 else "grouped": 1}
    assert costs is None or costs.asked == [{5: 2, 7: 1, 9: 1}]
    for image, stitch, ranking in zip(batch, stitches, together, strict=True):
        (alone,) = counted.run([image], [stitch])
        assert ranking.indices[0] == alone.indices[0]
        assert ranking.probabilities == pytest.approx(alone.probabilities, abs=1e-5)


def test_a_mixture_that_is_told_its_way_runs_it_and_does_not_count(counted: Engine) -> None:
    counted.costs = Priced(2.0, 1.0)
    counted.run(images(3), [5, 7, 5], "merged")
    counted.costs = Priced(1.0, 2.0)
    counted.run(images(3), [5, 7, 5], "grouped")
    assert passes(counted) == [[5, 7, 5], [5, 5], [7]]
    assert not counted.mixed


def test_images_to_measure_with_lie_each_in_its_own_place(engine: Engine) -> None:
    made = engine.fixed_images(3)
    assert len({image.data_ptr() for image in made}) == 3
    assert [image.data_ptr() for image in engine.fixed_images(2)] == [image.data_ptr() for image in made[:2]]


def test_one_stitch_asks_for_no_price(counted: Engine) -> None:
    counted.costs = Priced(2.0, 1.0)
    counted.run(images(3), [5, 5, 5])
    assert passes(counted) == [[5, 5, 5]]
    assert counted.costs.asked == []
    assert not counted.mixed


def failing(engine: Engine, reason: str | None) -> Engine:
    assert isinstance(engine.runner, Counted)
    engine.runner.failure, engine.runner.reason = RuntimeError("CUDA error: device-side assert triggered"), reason
    return engine


def test_a_failure_that_passes_does_not_break_the_engine(counted: Engine) -> None:
    with pytest.raises(RuntimeError, match="device-side assert"):
        failing(counted, None).run(images(1), [0])
    assert counted.broken is None


def test_a_failure_that_stays_breaks_the_engine_for_good(counted: Engine) -> None:
    with pytest.raises(RuntimeError, match="device-side assert"):
        failing(counted, "device-side assert triggered").run(images(1), [0])
    assert counted.broken == "device-side assert triggered"
    with pytest.raises(RuntimeError, match="the device is broken: device-side assert"):
        counted.run(images(1), [0])
    assert len(passes(counted)) == 1


def test_an_answer_that_is_not_finite_is_an_error(engine: Engine) -> None:
    broken = Engine(stitching.load("digits"), torch.device("cpu"))
    with torch.no_grad():
        broken.model.anchors[0].head.bias.fill_(torch.nan)  # type: ignore[union-attr,operator]
    with pytest.raises(RuntimeError, match="not finite"):
        broken.run(images(1), [0])


def test_switching_stitches_allocates_no_weights(engine: Engine) -> None:
    before = {name: value.data_ptr() for name, value in engine.model.state_dict().items()}
    for stitch in (0, 30, 2, 5, 0, 46):
        engine.run(images(2), [stitch, stitch])
    assert {name: value.data_ptr() for name, value in engine.model.state_dict().items()} == before


def test_on_a_processor_the_first_and_the_last_stitch_warm_up(counted: Engine) -> None:
    counted.warm_up([2, 30, 0])
    assert passes(counted) == [[2], [0]]
    assert (counted.lanes, counted.staged) == (1, None)


def staged() -> Engine:
    """An engine whose device is none, but records."""

    def runner(_: torch.device, forward: Forward) -> Staged:
        device = Device()
        device.graph_limit = 10**9
        return Staged(device, forward, largest=8, size=64, kept=100)

    return Engine(stitching.load("digits"), torch.device("cpu"), dtype="float32", runner=runner)


def test_what_is_recorded_while_modules_are_timed_does_not_run_without_a_graph(engine: Engine) -> None:
    there = staged()
    assert there.staged
    laps = there.run_timed(20, 3)
    assert [kind for kind, _ in laps] == [kind for kind, _ in engine.run_timed(20, 3)]
    assert {seconds for _, seconds in laps[1:]} == {0.25}, "what the device says"
    assert there.staged.graphs.replayed == 1
    assert not there.staged.graphs.eager, "or recording would be part of what was timed"


def test_after_warming_up_neither_stitches_nor_their_mixtures_run_without_a_graph(engine: Engine) -> None:
    there, batch, stitches = staged(), images(6), [2, 30, 30, 9, 2, 2]
    assert there.staged
    there.warm_up([2, 9, 30])
    whole = list(there.recordings([2, 9]))
    assert len(whole) == 2 * len(there.staged.buckets.sizes)
    for record in whole:
        record()
    for asked in (stitches, [9] * 6, [30] * 6):
        for here, alone in zip(there.run(batch, asked), engine.run(batch, asked), strict=True):
            assert here.indices[0] == alone.indices[0]
            assert here.probabilities == pytest.approx(alone.probabilities, abs=1e-3)
    assert not there.staged.graphs.eager


def test_where_there_is_no_room_steps_are_worth_more_than_stitches_as_a_whole() -> None:
    there = staged()
    assert there.staged
    there.warm_up([2, 9, 30])
    steps = len(there.staged.graphs)
    there.staged.graphs.most = steps + 5
    for record in there.recordings([2, 9, 30]):
        record()
    assert len(there.staged.graphs) == steps + 5
    assert not there.staged.graphs.evicted
