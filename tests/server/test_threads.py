"""How many threads compute, and why."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

import pytest
import torch

import stitching
from server.cgroups import cpus
from server.threads import Threads, choose_once, choose_threads, measured_threads, most_threads, settle
from server.trials import FEWEST, ROUNDS, in_turns


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def never(_: Sequence[int]) -> Mapping[int, float]:
    raise AssertionError("nothing is to be measured")


def took(**seconds: float) -> Mapping[int, float]:
    return {int(name[1:]): value for name, value in seconds.items()}


@pytest.mark.parametrize(
    ("most", "seconds", "chosen"),
    [
        (2, took(_1=8.0, _2=4.2), 2),
        (2, took(_1=8.0, _2=6.5), 1),
        (2, took(_1=8.0, _2=9.0), 1),
        (8, took(_1=8.0, _2=4.2, _4=2.4, _8=2.3), 4),
        (8, took(_1=8.0, _2=7.0, _4=2.0, _8=1.0), 1),
        (8, took(_1=8.0, _2=4.0, _4=2.0, _8=1.0), 8),
        (6, took(_1=8.0, _2=4.0, _4=2.0, _6=1.7), 4),
        (6, took(_1=8.0, _2=4.0, _4=2.0, _6=1.5), 6),
    ],
)
def test_threads_double_for_as_long_as_that_is_worth_the_cores(
    most: int, seconds: Mapping[int, float], chosen: int
) -> None:
    asked: list[int] = []

    def measure(counts: Sequence[int]) -> Mapping[int, float]:
        asked.extend(counts)
        return seconds

    assert choose_threads(None, most, measure).number == chosen
    assert asked == list(seconds)


def test_what_is_set_and_what_needs_no_choice_is_not_measured() -> None:
    assert choose_threads(3, 8, never) == Threads(3, "as set")
    assert choose_threads(None, 1, never).number == 1


def test_no_more_threads_than_the_processors_we_may_use() -> None:
    assert most_threads(1000) == max(1, int(cpus()))
    assert most_threads(1) == 1


def test_measuring_runs_each_block_on_each_number_of_threads_and_leaves_torch_as_it_was() -> None:
    model, ticks = stitching.load("digits"), count()
    torch.set_num_threads(1)
    seen: list[int] = []

    def clock() -> float:
        seen.append(torch.get_num_threads())
        return float(next(ticks))

    depths = sum(seam.depth for seam in model.seams)
    assert measured_threads(model, [1, 2], clock) == {1: depths, 2: depths}  # a tick a block
    assert set(seen) == {1, 2}
    assert torch.get_num_threads() == 1


def test_settling_sets_torch() -> None:
    assert settle(stitching.load("digits"), 2) == Threads(2, "as set")
    assert torch.get_num_threads() == 2


def test_long_trials_have_fewer_rounds() -> None:
    def rounds(seconds: float) -> int:
        ticks = count()
        took = in_turns({"a": int, "b": int}, lambda: next(ticks) * seconds)
        assert len(took["a"]) == len(took["b"])
        return len(took["a"])

    assert rounds(0.001) == ROUNDS
    assert rounds(10.0) == FEWEST


def test_what_was_measured_is_kept_for_the_day(tmp_path: Path) -> None:
    kept, faster = tmp_path / "cache" / "threads.json", took(_1=8.0, _2=4.0)
    first = choose_once(kept, 2, lambda _: faster)
    assert first.number == 2
    assert choose_once(kept, 2, never) == first
    known = json.loads(kept.read_text())
    wrongs: list[dict[str, object]] = [
        {"number": 10_000}, {"measured": {}}, {"number": None}, {"number": math.inf}, {"more": "x" * 5000},
    ]  # fmt: skip
    for text in (*(json.dumps(known | {"reason": "as kept"} | wrong) for wrong in wrongs), "{", "[" * 4000):
        kept.write_text(text)
        assert choose_once(kept, 2, lambda _: faster) == first
    kept.unlink()
    os.mkfifo(kept)
    assert choose_once(kept, 2, lambda _: faster) == first
    assert choose_once(kept, 2, never) == first, "kept in the pipe's place"


def test_what_was_measured_beside_others_is_not_kept(tmp_path: Path) -> None:
    assert choose_once(tmp_path / "threads.json", 2, lambda _: took(_1=4.0, _2=8.0)).number == 1
    assert not (tmp_path / "threads.json").exists()


def test_a_cache_that_cannot_be_written_to_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    assert choose_once(tmp_path / "cache" / "threads.json", 2, lambda _: took(_1=8.0, _2=4.0)).number == 2
