"""The engine on the shipped network."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import stitching
from lookup_tables.modules import INPUT, OUTPUT, Composition
from lookup_tables.table import LookupTable, TableError, folder
from server.engine import Engine, pick_device


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
    assert ranking.probabilities == sorted(ranking.probabilities, reverse=True)
    torch.testing.assert_close(torch.tensor(ranking.probabilities), expected[ranking.indices], atol=1e-6, rtol=1e-4)


def test_a_mixed_batch_gives_each_row_its_own_stitch(engine: Engine) -> None:
    batch, stitches = images(12), [0, 30, 1, 2, 30, 5, 12, 0, 46, 20, 2, 8]
    together = engine.run(batch, stitches)
    for image, stitch, ranking in zip(batch, stitches, together, strict=True):
        (alone,) = engine.run([image], [stitch])
        assert ranking.indices[0] == alone.indices[0]
        assert ranking.probabilities == pytest.approx(alone.probabilities, abs=1e-5)


def test_the_shipped_table_is_the_shipped_networks(engine: Engine) -> None:
    engine.check(LookupTable.load(folder("digits")))


def test_a_table_of_another_family_is_refused(engine: Engine) -> None:
    with pytest.raises(TableError, match=r"stitch 0 is deit_ti\[0:12\], but digits_s"):
        engine.check(LookupTable.load(folder("deit_ti_s_b")))


def test_a_table_with_other_preprocessing_is_refused(engine: Engine) -> None:
    table = LookupTable.load(folder("digits"))
    family = replace(table.family, preprocessing=replace(table.family.preprocessing, size=32))
    with pytest.raises(TableError, match="preprocessing"):
        engine.check(replace(table, family=family))


def test_a_table_that_lists_other_modules_is_refused(engine: Engine) -> None:
    table = LookupTable.load(folder("digits"))
    assert table.modules
    first, *others = table.modules.modules
    renamed = replace(table, modules=Composition((replace(first, kind="another"), *others)))
    with pytest.raises(TableError, match=r"by modules\.csv stitch 0 passes other modules .* or remove that file"):
        engine.check(renamed)


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


def test_a_device_that_is_not_here_is_named() -> None:
    with pytest.raises(ValueError, match="'cuda:99' cannot be used"):
        pick_device("cuda:99")
    with pytest.raises(ValueError, match="'potato' cannot be used"):
        pick_device("potato")


def test_a_missing_checkpoint_says_what_to_do() -> None:
    with pytest.raises(stitching.CheckpointError, match="no weights ship with family 'deit_ti_s_b'"):
        Engine.load("deit_ti_s_b", None, "cpu")
    with pytest.raises(stitching.CheckpointError, match=r"nowhere\.pth: no such file"):
        Engine.load("digits", Path("nowhere.pth"), "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu(engine: Engine) -> None:
    batch, stitches = images(16), [0, 1, 2, 30] * 4
    for here, there in zip(
        engine.run(batch, stitches), Engine.load("digits", None, "cuda").run(batch, stitches), strict=True
    ):
        assert here.indices[0] == there.indices[0]
        assert dict(zip(*here, strict=True)) == pytest.approx(dict(zip(*there, strict=True)), abs=1e-3)
