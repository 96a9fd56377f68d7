"""The fuzz targets take their valid files and some mutations of them. `python -m benchmarks.fuzz` runs far more."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import cast

import pytest

from benchmarks.fuzz.__main__ import Judge, blind
from benchmarks.fuzz.target import Target
from stitching import checkpoint

RUNS = {"budgets": 2000, "checkpoints": 100, "forms": 1000, "images": 300, "tables": 300, "tensors": 1000}


@pytest.fixture
def unpatched() -> Iterator[None]:
    """What the checkpoints' target replaces, as it was before."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FAMILIES", "unfilled", "named_family"):
            patch.setattr(checkpoint, name, getattr(checkpoint, name))
        yield


@pytest.mark.usefixtures("unpatched")
@pytest.mark.parametrize("name", RUNS)
def test_a_target_takes_mutations_without_a_failure(name: str, tmp_path: Path) -> None:
    target = cast(Target, import_module(f"benchmarks.fuzz.{name}").TARGET)
    judge = Judge(target, RUNS[name], tmp_path)
    blind(target, judge, seed=7)
    assert judge.outcomes.total() == RUNS[name]
    assert not [outcome for outcome in judge.outcomes if outcome.startswith("FAILED")], judge.outcomes
    for seed in target.seeds:
        judge(seed)
    assert judge.outcomes["taken"], judge.outcomes
