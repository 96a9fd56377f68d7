"""Where a device's latencies come from: the table's folder, the cache, or a bounded profile."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from lookup_tables.costs import Way
from lookup_tables.modules import INPUT, OUTPUT
from lookup_tables.profile import LEAST_ROUNDS, affordable
from lookup_tables.table import LookupTable, folder
from server.engine import Engine, Image, Ranking
from server.latencies import batches_up_to, checks, covering, table_for

PROBES = 4
"""Runs of the dearest stitch that tell how much profiling is affordable."""


class Counting(Engine):
    """Counts what it is asked to run."""

    runs = 0
    changed: Mapping[str, str] = MappingProxyType({})

    @property
    def conditions(self) -> Mapping[str, str]:
        return {**super().conditions, **self.changed}

    def run_once(self, stitch: int, batch: int) -> None:
        self.runs += 1
        super().run_once(stitch, batch)

    def run_timed(self, stitch: int, batch: int) -> list[tuple[str, float]]:
        self.runs += 1
        return super().run_timed(stitch, batch)


@pytest.fixture
def engine() -> Counting:
    return Counting.load("digits", None, "cpu")  # type: ignore[return-value]


def test_profiled_once_then_taken_from_the_cache(engine: Counting, tmp_path: Path) -> None:
    first = table_for(engine, folder("digits"), tmp_path, max_batch=4, time_limit=0.5)
    assert engine.runs > 0
    (kept,) = tmp_path.rglob("latency.*.csv")
    assert kept.parent.name.startswith("digits-")
    runs = engine.runs
    again = table_for(engine, folder("digits"), tmp_path, max_batch=4, time_limit=1e-9)
    assert engine.runs == runs + PROBES
    assert again.latency == first.latency


class Instant(Counting):
    """Takes no time, so that all is affordable in some."""

    def run_once(self, stitch: int, batch: int) -> None:
        self.runs += 1

    def run_timed(self, stitch: int, batch: int) -> list[tuple[str, float]]:
        path = self.model.path(self.model.stitches[stitch])
        return [(kind, 1e-6) for kind in (INPUT, *(step.kind for step in path), OUTPUT)]


class Mixing(Instant):
    """Keeps which mixtures it was asked to run."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.mixtures: list[tuple[Sequence[int], str | None]] = []

    def run(self, images: Sequence[Image], stitches: Sequence[int], way: Way | None = None) -> list[Ranking]:
        self.mixtures.append((stitches, way))
        return super().run(images, stitches, way)

    def recordings(self, stitches: Sequence[int]) -> Iterator[Callable[[], bool]]:
        def record() -> bool:
            self.mixtures.append((stitches, "recorded"))
            return True

        yield record


def test_a_poorer_profile_is_replaced_once_more_is_affordable(tmp_path: Path) -> None:
    engine = Instant.load("digits", None, "cpu", dtype="float32")
    poor = table_for(engine, folder("digits"), tmp_path, max_batch=2, time_limit=1e-9)
    rich = table_for(engine, folder("digits"), tmp_path, max_batch=2, time_limit=60)
    assert poor.latency
    assert rich.latency
    assert {m.batch for m in poor.latency.modules} == {1}
    assert {m.batch for m in rich.latency.modules} == {1, 2}
    assert LookupTable.load(folder("digits"), next(tmp_path.rglob("latency.*.csv"))).latency == rich.latency


def test_another_torch_or_dtype_is_measured_anew(engine: Counting, tmp_path: Path) -> None:
    table_for(engine, folder("digits"), tmp_path, max_batch=1, time_limit=0.1)
    engine.changed = {"dtype": "bfloat16"}
    runs = engine.runs
    table_for(engine, folder("digits"), tmp_path, max_batch=1, time_limit=0.1)
    assert engine.runs > runs


def test_a_shipped_file_of_this_device_is_preferred(engine: Counting, tmp_path: Path) -> None:
    table_for(engine, folder("digits"), tmp_path / "cache", max_batch=1, time_limit=0.1)
    (measured,) = (tmp_path / "cache").rglob("latency.*.csv")
    shutil.copytree(folder("digits"), tmp_path / "table" / "digits")
    shutil.copy(measured, tmp_path / "table" / "digits")
    engine.runs = 0
    table_for(engine, tmp_path / "table" / "digits", tmp_path / "empty", max_batch=1, time_limit=0.1)
    assert engine.runs == 0
    assert not (tmp_path / "empty").exists()


def test_where_nothing_can_be_kept_it_serves_all_the_same(engine: Counting, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, no folder")
    table = table_for(engine, folder("digits"), tmp_path / "cache", max_batch=1, time_limit=1e-9)
    assert table.latency
    assert table.batch_seconds({0: 3, 2: 1}) > 0


def test_every_module_class_is_measured_and_the_prediction_checked(engine: Counting, tmp_path: Path) -> None:
    table = table_for(engine, folder("digits"), tmp_path, max_batch=1, time_limit=1e-9)
    assert table.latency
    assert table.modules
    assert {m.module for m in table.latency.modules} == set(table.modules.kinds)
    assert table.latency.details["prediction_checked"] == "2 stitches"
    # Probes; then few stitches in four rounds: four that pass all classes, two to check.
    assert engine.runs == PROBES + (4 + 2) * (1 + LEAST_ROUNDS)


def test_two_cheap_stitches_are_run_both_ways_in_turns(tmp_path: Path) -> None:
    engine = Mixing.load("digits", None, "cpu", dtype="float32")
    assert isinstance(engine, Mixing)
    table = table_for(engine, folder("digits"), tmp_path, max_batch=2, time_limit=60)
    cheapest = [entry.stitch for entry in table.frontier()[:2]]
    in_turns = [(cheapest, "merged"), (cheapest, "grouped")] * (1 + LEAST_ROUNDS)
    assert engine.mixtures[: 1 + len(in_turns)] == [(cheapest, "recorded"), *in_turns]
    assert LookupTable.load(folder("digits"), next(tmp_path.rglob("latency.*.csv"))).latency == table.latency


def test_what_is_checked_is_not_what_the_modules_were_measured_in() -> None:
    table = LookupTable.load(folder("deit_ti_s_b"))
    assert table.modules
    assert not set(checks(table)) & set(covering(table))
    assert set(checks(table)) <= {entry.stitch for entry in table.frontier()}
    assert len(checks(table)) == 8


def test_a_table_that_knows_no_modules_has_its_frontier_measured(engine: Counting, tmp_path: Path) -> None:
    source = shutil.copytree(folder("digits"), tmp_path / "digits")
    (source / "modules.csv").unlink()
    frontier = [entry.stitch for entry in LookupTable.load(source).frontier()]
    assert checks(LookupTable.load(source)) == frontier
    assert not covering(LookupTable.load(source))
    table = table_for(engine, source, tmp_path / "cache", max_batch=1, time_limit=1e-9)
    assert table.latency
    assert set(table.latency.stitches) == {frontier[0], frontier[-1]}
    assert not table.latency.modules


def test_a_table_of_other_modules_is_measured_anew(engine: Counting, tmp_path: Path) -> None:
    source = shutil.copytree(folder("digits"), tmp_path / "digits")
    table_for(engine, source, tmp_path / "cache", max_batch=1, time_limit=1e-9)
    (source / "modules.csv").unlink()
    runs = engine.runs
    table_for(engine, source, tmp_path / "cache", max_batch=1, time_limit=1e-9)
    assert engine.runs > runs + PROBES


def test_batch_sizes_are_powers_of_two_and_the_largest() -> None:
    assert batches_up_to(1) == (1,)
    assert batches_up_to(12) == (1, 2, 4, 8, 12)
    assert batches_up_to(32) == (1, 2, 4, 8, 16, 32)


@pytest.mark.parametrize("limit", [1e-9, 0.01, 0.1, 1.0, 100.0])
def test_what_is_affordable_fits_the_limit_or_is_the_least(limit: float) -> None:
    flops = {stitch: (stitch + 1) * 10**9 for stitch in range(39)}
    stitches, batches = affordable(flops, (1, 2, 4, 8), 1e-12, limit)
    work = sum(flops[stitch] for stitch in stitches) * sum(batches) * 1e-12
    assert (1 + LEAST_ROUNDS) * work <= limit or (stitches, batches) == ([0, 38], [1])
    assert {0, 38} <= set(stitches)
    assert batches[0] == 1


@pytest.mark.parametrize("limit", [1e-9, 0.01, 0.1, 1.0, 100.0])
def test_what_is_affordable_counts_what_is_run_in_any_case(limit: float) -> None:
    flops = {stitch: (stitch + 1) * 10**9 for stitch in range(12)}
    stitches, batches = affordable(flops, (1, 2, 4, 8), 1e-12, limit, through=[0, 5, 11])
    work = sum(flops[stitch] for stitch in [*stitches, 0, 5, 11]) * sum(batches) * 1e-12
    assert (1 + LEAST_ROUNDS) * work <= limit or (stitches, batches) == ([1, 10], [1])
    assert {1, 10} <= set(stitches) <= set(range(12)) - {0, 5, 11}
